/** What compiler and profiler said of lines, in CodeMirror: a gutter, and messages under the lines. */

import { make } from "./core.js";

/** @import { Mark } from "./types.d.ts" */
/** @typedef {import("./core.js").CodeMirrorLibrary} CodeMirrorLibrary */

/** Each kind with its shape and name, loudest first. @type {Record<Mark["kind"], {glyph: string, name: string}>} */
export const MARKS = {
  error: { glyph: "✗", name: "error" },
  warning: { glyph: "▲", name: "warning" },
  hot: { glyph: "▮", name: "hot" },
  remark: { glyph: "•", name: "remark" },
};

/** @param {Mark[]} marks @param {number} lines @returns {Map<number, Mark[]>} by line, loudest first */
function byLine(marks, lines) {
  const order = Object.keys(MARKS);
  const found = /** @type {Map<number, Mark[]>} */ (new Map());
  for (const mark of [...marks].sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind))) {
    if (mark.line >= 1 && mark.line <= lines) found.set(mark.line, [...(found.get(mark.line) ?? []), mark]);
  }
  return new Map([...found].sort(([a], [b]) => a - b));
}

/**
 * A column with the loudest mark of a line, or the share of a hot line as a bar; all of them as a tip.
 * @param {CodeMirrorLibrary} C
 * @param {Mark[]} marks
 */
export function markGutter(C, marks) {
  const most = Math.max(...marks.map((mark) => mark.share ?? 0), 1e-9);

  class LineMark extends C.GutterMarker {
    /** @param {Mark[]} here */
    constructor(here) {
      super();
      this.here = here;
    }

    /** @override */
    toDOM() {
      const loudest = this.here.find((mark) => mark.kind !== "hot");
      const hot = this.here.find((mark) => mark.kind === "hot");
      const parts = [];
      if (hot) {
        const bar = make("span", { class: "cf-hot-bar" });
        bar.style.width = `${(100 * (hot.share ?? 0)) / most}%`;
        parts.push(
          bar,
          make(
            "span",
            { class: "cf-hot-share" },
            (hot.share ?? 0) < 0.005 ? "<1%" : `${Math.round(100 * (hot.share ?? 0))}%`,
          ),
        );
      }
      if (loudest) parts.push(make("span", { class: `cf-glyph cf-glyph-${loudest.kind}` }, MARKS[loudest.kind].glyph));
      const tip = this.here.map((mark) => `${MARKS[mark.kind].name}: ${mark.text}`).join("\n");
      return make("span", { class: "cf-line-mark", title: tip }, ...parts);
    }
  }

  return C.gutter({
    class: `cf-gutter${marks.some((mark) => mark.kind === "hot") ? " cf-gutter-hot" : ""}`,
    markers: (view) => {
      const lines = byLine(marks, view.state.doc.lines);
      const builder = new C.RangeSetBuilder();
      for (const [line, here] of lines) {
        const { from } = view.state.doc.line(line);
        builder.add(from, from, new LineMark(here));
      }
      return /** @type {import("@codemirror/state").RangeSet<import("@codemirror/view").GutterMarker>} */ (
        builder.finish()
      );
    },
  });
}

/**
 * Tints marked lines, and writes errors and warnings under them.
 * @param {CodeMirrorLibrary} C
 * @param {Mark[]} marks
 */
export function markLines(C, marks) {
  class Message extends C.WidgetType {
    /** @param {Mark} mark */
    constructor(mark) {
      super();
      this.mark = mark;
    }

    /** @override */
    toDOM() {
      const { kind, text } = this.mark;
      // The outer box has no margin: CodeMirror counts heights without them.
      const message = make("div", { class: `cf-message cf-message-${kind}` }, `${MARKS[kind].glyph} ${text}`);
      return make("div", { class: "cf-message-row" }, message);
    }
  }

  return C.StateField.define({
    create(state) {
      const ranges = [];
      for (const [line, here] of byLine(marks, state.doc.lines)) {
        const { from, to } = state.doc.line(line);
        ranges.push(C.Decoration.line({ class: `cf-line-${here[0].kind}` }).range(from));
        for (const mark of here) {
          if (mark.kind !== "error" && mark.kind !== "warning") continue;
          ranges.push(C.Decoration.widget({ widget: new Message(mark), block: true, side: 1 }).range(to));
        }
      }
      return C.Decoration.set(ranges, true);
    },
    update: (decorations) => decorations,
    provide: (field) => C.EditorView.decorations.from(field),
  });
}
