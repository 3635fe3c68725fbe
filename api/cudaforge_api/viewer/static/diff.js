/**
 * `<cf-diff>`: one file against another, side by side, or one under the other where there is no room; what compiler and
 * profiler said of a line in the gutter and, for errors and warnings, under the line.
 *
 * The editors live in a shadow root: there CodeMirror adopts its style sheets instead of writing style elements, which
 * the page's security policy forbids.
 */

import { Island, loadCodeMirror, make } from "./core.js";
import { folding } from "./folds.js";
import { MARKS, markGutter, markLines } from "./marks.js";
import { SHEET, highlighting, theme } from "./diff-theme.js";

/** @import { Diff } from "./types.d.ts" */
/** @typedef {import("@codemirror/view").EditorView} EditorView */
/** @typedef {import("@codemirror/state").Extension} Extension */
/** @typedef {import("./folds.js").Views} Views */

/** Narrower than this there is no room for two sides. */
const TWO_SIDES = 700;
const UNFOLD = "show all lines";
const FOLD = "changes only";

/** @extends {Island<Diff>} */
export class DiffElement extends Island {
  /** @override */
  static fallback = "as text";

  /** @type {import("./core.js").CodeMirrorLibrary} */
  #library = /** @type {any} */ (null);
  #layout = "";
  /** @type {Diff | null} */
  #data = null;
  /** Whether all lines are shown. */
  #open = false;
  /** @type {ReturnType<typeof folding>} */
  #folding = /** @type {any} */ (null);
  /** @type {{destroy(): void} | null} */
  #shown = null;

  /** @override */
  async load() {
    this.#library = await loadCodeMirror();
    this.#folding = folding(this.#library);
  }

  /**
   * @override
   * @param {Diff} data
   * @param {HTMLElement} box
   * @param {number} width
   */
  render(data, box, width) {
    const layout = data.left.text === "" || data.right.text === "" ? "one" : width >= TWO_SIDES ? "two" : "unified";
    if (layout !== this.#layout || data !== this.#data) {
      this.#layout = layout;
      this.#data = data;
      this.#build(data, box);
    }
  }

  /** @param {Diff} data @param {HTMLElement} box */
  #build(data, box) {
    this.#shown?.destroy();
    const host = make("div", { class: "cf-diff-host" });
    const root = host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(SHEET);
    root.adoptedStyleSheets = [sheet];
    const frame = make("div", { class: "frame" });
    // The search panel stands above both sides: within one it would push that side's lines down.
    const panels = make("div", { class: "panels" });
    root.append(panels, frame);
    const views =
      this.#layout === "two" ? this.#twoSides(data, frame, root, panels) : this.#oneSide(data, frame, root, panels);
    this.#folding.apply(views, data.marks, this.#open);
    box.replaceChildren(this.#bar(data, views), host, ...this.#list(data, views));
  }

  /** @param {Diff} data @param {HTMLElement} parent @param {ShadowRoot} root @param {HTMLElement} panels */
  #twoSides(data, parent, root, panels) {
    const { MergeView } = this.#library;
    const view = new MergeView({
      parent,
      root,
      a: { doc: data.left.text, extensions: this.#extensions(data, "left", panels) },
      b: { doc: data.right.text, extensions: this.#extensions(data, "right", panels) },
      gutter: true,
    });
    this.#shown = view;
    return { left: view.a, right: view.b };
  }

  /**
   * The new text with what it replaced between its lines; or the one text that there is.
   * @param {Diff} data @param {HTMLElement} parent @param {ShadowRoot} root @param {HTMLElement} panels
   */
  #oneSide(data, parent, root, panels) {
    const { EditorView, unifiedMergeView } = this.#library;
    const side = data.right.text === "" ? "left" : "right";
    const merge =
      this.#layout === "one" ? [] : unifiedMergeView({ original: data.left.text, mergeControls: false, gutter: true });
    const view = new EditorView({
      parent,
      root,
      doc: data[side].text,
      extensions: [this.#extensions(data, side, panels), merge],
    });
    this.#shown = view;
    return { [side]: view };
  }

  /** @param {Diff} data @param {"left" | "right"} side @param {HTMLElement} panels @returns {Extension[]} */
  #extensions(data, side, panels) {
    const C = this.#library;
    const marks = data.marks.filter((mark) => mark.side === side);
    return [
      C.lineNumbers(),
      C.highlightSpecialChars(), // marks that turn the direction of text would show another kernel than was compiled
      this.#folding.extension,
      marks.length ? [markGutter(C, marks), markLines(C, marks)] : [],
      data.language === "python" ? C.python() : C.cpp(),
      highlighting(C),
      theme(C),
      C.search({ top: true }),
      C.panels({ topContainer: panels }),
      C.keymap.of([...C.searchKeymap, { key: "F7", run: C.goToNextChunk, shift: C.goToPreviousChunk }]),
      C.EditorView.lineWrapping,
      this.#layout === "unified" ? C.EditorView.editorAttributes.of({ class: "cf-narrow" }) : [],
      C.EditorState.readOnly.of(true),
      C.EditorView.editable.of(false),
      C.EditorView.contentAttributes.of({ tabindex: "0", "aria-label": data[side].title, "aria-readonly": "true" }),
    ];
  }

  /**
   * Titles, the number of changes, and the buttons.
   * @param {Diff} data
   * @param {Views} views
   */
  #bar(data, views) {
    const C = this.#library;
    const main = views.right ?? views.left;
    const chunks = main ? (C.getChunks(main.state)?.chunks.length ?? 0) : 0;
    const button = (/** @type {string} */ text, /** @type {(pressed: HTMLElement) => void} */ action) => {
      const made = make("button", { type: "button" }, text);
      made.addEventListener("click", () => action(made));
      return made;
    };
    const go = (/** @type {import("@codemirror/state").StateCommand} */ command) => () => {
      if (!main) return;
      command(main);
      const { EditorView } = C;
      main.dispatch({ effects: EditorView.scrollIntoView(main.state.selection.main, { y: "center" }) });
    };
    const said =
      this.#layout === "one"
        ? []
        : [chunks === 0 ? "no difference" : `${chunks} ${chunks === 1 ? "change" : "changes"}`];
    const titles =
      this.#layout === "one"
        ? make("span", { class: "cf-diff-titles" }, make("b", {}, views.right ? data.right.title : data.left.title))
        : make(
            "span",
            { class: "cf-diff-titles" },
            make("span", {}, data.left.title),
            " → ",
            make("b", {}, data.right.title),
          );
    return make(
      "div",
      { class: "cf-diff-bar" },
      titles,
      make("span", { class: "cf-diff-count" }, ...said),
      ...(chunks > 1 ? [button("previous", go(C.goToPreviousChunk)), button("next", go(C.goToNextChunk))] : []),
      ...(this.#layout === "one"
        ? []
        : [
            button(this.#open ? FOLD : UNFOLD, (pressed) => {
              this.#open = !this.#open;
              pressed.textContent = this.#open ? FOLD : UNFOLD;
              this.#folding.apply(views, data.marks, this.#open);
            }),
          ]),
      button("find", () => {
        if (!main) return;
        main.focus();
        C.openSearchPanel(main);
      }),
    );
  }

  /**
   * All marks as a list: the gutter is for the eye, this is for everybody. An entry leads to its line.
   * @param {Diff} data
   * @param {Views} views
   */
  #list(data, views) {
    const marks = data.marks.filter((mark) => views[mark.side]);
    if (!marks.length) return [];
    const items = marks.map((mark) => {
      const view = /** @type {EditorView} */ (views[mark.side]);
      const kind = MARKS[mark.kind];
      const share = mark.share === null ? "" : ` ${Math.round(100 * mark.share)} %`;
      const entry = make(
        "button",
        { type: "button", class: `cf-mark cf-mark-${mark.kind}` },
        make("span", { class: "cf-mark-glyph", "aria-hidden": "true" }, kind.glyph),
        make("span", { class: "cf-mark-where" }, `${mark.side === "left" ? `${data.left.title}:` : ""}${mark.line}`),
        make("span", {}, `${kind.name}${share}: ${mark.text}`),
      );
      entry.addEventListener("click", () => {
        const line = view.state.doc.line(Math.min(Math.max(mark.line, 1), view.state.doc.lines));
        const { EditorView } = this.#library;
        view.dispatch({
          selection: { anchor: line.from },
          effects: EditorView.scrollIntoView(line.from, { y: "center" }),
        });
        view.focus();
      });
      return make("li", {}, entry);
    });
    const list = make("ul", { class: "cf-marks" }, ...items);
    const loud = marks.filter((mark) => mark.kind === "error" || mark.kind === "warning").length;
    const summary = make("summary", {}, `${marks.length} ${marks.length === 1 ? "remark" : "remarks"} on these lines`);
    return [make("details", { class: "cf-marks-box", open: loud > 0 && marks.length <= 12 }, summary, list)];
  }
}

customElements.define("cf-diff", DiffElement);
