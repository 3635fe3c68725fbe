/**
 * Folds long unchanged stretches of a diff, but never a line that something is said of. (CodeMirror's own folding knows
 * no such lines, and its folds cannot be reached with the keyboard.)
 */

import { make } from "./core.js";

/** @import { Mark } from "./types.d.ts" */
/** @typedef {import("./core.js").CodeMirrorLibrary} CodeMirrorLibrary */
/** @typedef {import("@codemirror/view").EditorView} EditorView */
/** @typedef {Partial<Record<"left" | "right", EditorView>>} Views */
/** @typedef {{id: number, lines: number, from: number, to: number}} Fold lines of one side, from 1, both included */

/** Lines that stay around a change and around a marked line, and the least that is worth a fold. */
const AROUND = 3;
const LEAST = 6;

/** @param {CodeMirrorLibrary} C */
export function folding(C) {
  /** @type {import("@codemirror/state").StateEffectType<Fold[]>} */
  const fold = C.StateEffect.define();
  /** @type {import("@codemirror/state").StateEffectType<number>} */
  const unfold = C.StateEffect.define();
  /** @type {Views} */
  let shown = {};

  class FoldWidget extends C.WidgetType {
    /** @param {Fold} fold */
    constructor(fold) {
      super();
      this.fold = fold;
    }

    /** @override */
    toDOM() {
      const button = make("button", { type: "button", class: "cf-fold" }, `${this.fold.lines} unchanged lines`);
      button.addEventListener("click", () => {
        for (const view of Object.values(shown)) view.dispatch({ effects: unfold.of(this.fold.id) });
      });
      return button;
    }

    /** @override */
    ignoreEvent() {
      return true;
    }
  }

  const field = C.StateField.define({
    create: () => C.Decoration.none,
    update(folds, { effects, state }) {
      for (const effect of effects) {
        if (effect.is(unfold))
          folds = folds.update({ filter: (_from, _to, { spec }) => spec.widget.fold.id !== effect.value });
        if (effect.is(fold)) {
          const ranges = effect.value.map((each) =>
            C.Decoration.replace({ widget: new FoldWidget(each), block: true }).range(
              state.doc.line(each.from).from,
              state.doc.line(each.to).to,
            ),
          );
          folds = C.Decoration.set(ranges);
        }
      }
      return folds;
    },
    provide: (self) => C.EditorView.decorations.from(self),
  });

  // What is found by a search is shown.
  const followSelection = C.EditorView.updateListener.of(({ selectionSet, state }) => {
    if (!selectionSet) return;
    const { head } = state.selection.main;
    state.field(field).between(head, head, (_from, _to, { spec }) => {
      for (const view of Object.values(shown)) view.dispatch({ effects: unfold.of(spec.widget.fold.id) });
    });
  });

  return {
    extension: [field, followSelection],
    /**
     * Folds what is unchanged in all views, or with `open` nothing.
     * @param {Views} views
     * @param {Mark[]} marks
     * @param {boolean} open
     */
    apply(views, marks, open) {
      shown = views;
      const stretches = open ? [] : quiet(C, views, marks);
      for (const [side, view] of Object.entries(views)) {
        const folds = stretches.map(({ id, lines, start }) => {
          const from = start[/** @type {"left" | "right"} */ (side)];
          return { id, lines, from, to: from + lines - 1 };
        });
        view.dispatch({ effects: fold.of(folds) });
      }
    },
  };
}

/**
 * The stretches that are the same on both sides and of which nothing is said, by their first line on each side.
 * @param {CodeMirrorLibrary} C
 * @param {Views} views
 * @param {Mark[]} marks
 */
function quiet(C, views, marks) {
  const view = views.right ?? views.left;
  const chunks = view && C.getChunks(view.state)?.chunks;
  if (!view || !chunks) return [];
  const b = view.state.doc;
  const a = views.right && views.left ? views.left.state.doc : C.getOriginalDoc(view.state);
  const found = [];
  let [lineA, lineB] = [1, 1]; // the first lines after the last chunk
  for (let i = 0; i <= chunks.length; i++) {
    const chunk = chunks[i];
    const length =
      (chunk ? b.lineAt(Math.min(chunk.fromB, b.length)).number + (chunk.fromB > b.length ? 1 : 0) : b.lines + 1) -
      lineB;
    const near = (/** @type {number} */ offset) =>
      (i > 0 && offset < AROUND) ||
      (chunk !== undefined && offset >= length - AROUND) ||
      marks.some((mark) => Math.abs(mark.line - (mark.side === "left" ? lineA : lineB) - offset) < AROUND);
    for (let from = 0; from < length; from++) {
      let to = from;
      while (to < length && !near(to)) to++;
      if (to - from >= LEAST)
        found.push({ id: found.length, lines: to - from, start: { left: lineA + from, right: lineB + from } });
      from = Math.max(from, to);
    }
    if (!chunk) break;
    lineA = after(a, chunk.fromA, chunk.toA);
    lineB = after(b, chunk.fromB, chunk.toB);
  }
  return found;
}

/**
 * The number of the first line after a chunk; a chunk's end may lie one beyond the end of the text.
 * @param {import("@codemirror/state").Text} doc @param {number} from @param {number} to
 */
const after = (doc, from, to) => (to > doc.length ? doc.lines + 1 : doc.lineAt(to === from ? from : to).number);
