/** How a diff looks: the page's colours and font, in CodeMirror's terms. */

/** @typedef {import("./core.js").CodeMirrorLibrary} CodeMirrorLibrary */

/** For what lies around the editors in their shadow root. */
export const SHEET = `
.frame { border: 1px solid var(--line); border-radius: 4px; overflow: hidden; background: var(--panel); }
.cm-mergeView, .frame > .cm-editor { max-height: min(78vh, 60rem); overflow: auto; }
.cm-mergeViewEditor + .cm-mergeViewEditor { border-left: 1px solid var(--line); }
.cm-mergeViewEditor { min-width: 0; }
`;

/** @param {CodeMirrorLibrary} C */
export const theme = (C) =>
  C.EditorView.theme({
    "&": { color: "var(--text)", backgroundColor: "transparent", fontSize: "12px" },
    "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
    ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "18px" },
    ".cm-content": { padding: "2px 0" },
    ".cm-gutters": { backgroundColor: "var(--panel)", color: "var(--muted)", border: "none" },
    ".cm-lineNumbers .cm-gutterElement": { padding: "0 6px 0 8px", minWidth: "2.4em" },
    ".cm-changeGutter": { width: "3px", paddingLeft: "0" },
    "&.cm-merge-a .cm-changedLine, .cm-deletedChunk, .cm-inlineChangedLine": {
      backgroundColor: "color-mix(in srgb, var(--bad) 6%, transparent)",
    },
    "&.cm-merge-b .cm-changedLine, .cm-insertedLine": {
      backgroundColor: "color-mix(in srgb, var(--ok) 5%, transparent)",
    },
    "&.cm-merge-a .cm-changedText, &.cm-merge-b .cm-deletedText, .cm-deletedText": {
      background: "color-mix(in srgb, var(--bad) 8%, transparent)",
      textDecoration: "none",
    },
    "&.cm-merge-b .cm-changedText": { background: "color-mix(in srgb, var(--ok) 7%, transparent)" },
    "&.cm-merge-a .cm-changedLineGutter, .cm-deletedLineGutter": { background: "var(--bad)" },
    "&.cm-merge-b .cm-changedLineGutter": { background: "var(--ok)" },
    ".cm-deletedChunk": { paddingLeft: "6px" },
    ".cf-fold": {
      display: "block",
      width: "100%",
      padding: "2px 14px",
      border: "0",
      textAlign: "start",
      font: "11px/1.5 var(--mono)",
      color: "var(--muted)",
      background: "color-mix(in srgb, var(--line) 45%, transparent)",
      cursor: "pointer",
    },
    ".cf-fold:hover": { color: "var(--text)" },
    ".cf-fold:focus-visible": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
    ".cm-search input, .cm-search button, .cm-search label": { font: "inherit", fontSize: "12px" },
    ".cm-selectionMatch, .cm-searchMatch": { backgroundColor: "color-mix(in srgb, var(--warn) 30%, transparent)" },
    ".cm-searchMatch-selected": { outline: "1px solid var(--warn)" },
    ".cm-panels": { backgroundColor: "var(--panel)", color: "var(--text)", borderBottom: "1px solid var(--line)" },
    ".cm-textfield, .cm-button": {
      backgroundColor: "var(--page)",
      backgroundImage: "none",
      color: "var(--text)",
      border: "1px solid var(--line)",
    },
    ".cf-gutter": { width: "1.4em" },
    ".cf-gutter-hot": { width: "4.2em" },
    "&.cf-narrow .cf-gutter-hot": { width: "2.8em" },
    "&.cf-narrow .cm-lineNumbers .cm-gutterElement": { padding: "0 3px", minWidth: "1.6em" },
    // As high as one line, where a long one is wrapped.
    ".cf-line-mark": {
      display: "flex",
      alignItems: "center",
      height: "18px",
      position: "relative",
      gap: "3px",
      justifyContent: "flex-end",
      cursor: "help",
    },
    ".cf-hot-bar": {
      position: "absolute",
      right: "0",
      top: "2px",
      bottom: "2px",
      backgroundColor: "color-mix(in srgb, var(--accent) 32%, transparent)",
      borderRight: "2px solid var(--accent)",
    },
    ".cf-hot-share": { position: "relative", color: "var(--text)", fontSize: "10px", paddingRight: "5px" },
    ".cf-glyph": { position: "relative", fontSize: "10px", padding: "0 4px" },
    ".cf-glyph-error": { color: "var(--bad)", fontWeight: "bold" },
    ".cf-glyph-warning": { color: "var(--warn)" },
    ".cf-glyph-remark": { color: "var(--muted)" },
    ".cf-line-error": { boxShadow: "inset 3px 0 var(--bad)" },
    ".cf-line-warning": { boxShadow: "inset 3px 0 var(--warn)" },
    ".cf-message-row": { padding: "1px 8px 3px 12px" },
    ".cf-message": {
      padding: "2px 8px",
      whiteSpace: "pre-wrap",
      overflowWrap: "anywhere",
      borderRadius: "3px",
      fontFamily: "var(--mono)",
    },
    ".cf-message-error": {
      borderLeft: "3px solid var(--bad)",
      background: "color-mix(in srgb, var(--bad) 9%, transparent)",
    },
    ".cf-message-warning": {
      borderLeft: "3px solid var(--warn)",
      background: "color-mix(in srgb, var(--warn) 9%, transparent)",
    },
  });

/**
 * Few colours: what is read past (comments), what stands out (literals), what holds the shape (keywords).
 * @param {CodeMirrorLibrary} C
 */
export const highlighting = (C) =>
  C.syntaxHighlighting(
    C.HighlightStyle.define([
      { tag: [C.tags.comment, C.tags.lineComment, C.tags.blockComment], color: "var(--muted)", fontStyle: "italic" },
      {
        tag: [C.tags.keyword, C.tags.modifier, C.tags.controlKeyword, C.tags.operatorKeyword],
        color: "var(--code-keyword, var(--accent))",
      },
      { tag: [C.tags.string, C.tags.character, C.tags.special(C.tags.string)], color: "var(--code-string, var(--ok))" },
      { tag: [C.tags.number, C.tags.bool, C.tags.null], color: "var(--code-number, var(--warn))" },
      {
        tag: [C.tags.typeName, C.tags.className, C.tags.namespace, C.tags.standard(C.tags.typeName)],
        color: "var(--code-type, var(--accent))",
      },
      { tag: [C.tags.processingInstruction, C.tags.macroName, C.tags.meta], color: "var(--code-meta, var(--muted))" },
      {
        tag: [C.tags.function(C.tags.variableName), C.tags.function(C.tags.definition(C.tags.variableName))],
        fontWeight: "600",
      },
    ]),
  );
