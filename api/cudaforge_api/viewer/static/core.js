/**
 * What every element stands on: islands that draw themselves from the JSON that the server put into them, the two
 * libraries, loaded when first needed, and how numbers are written.
 *
 * Data is untrusted text. It enters the document as text nodes and attributes of our own choosing, never as HTML.
 */

/** @typedef {typeof import("./vendor/plot.js")} PlotLibrary */
/** @typedef {typeof import("./vendor/codemirror.js")} CodeMirrorLibrary */

// An exported page carries the libraries as inline modules, which register themselves here and cannot be imported.
const inline = () =>
  /** @type {{cudaforgeLibraries?: {plot?: PlotLibrary, codemirror?: CodeMirrorLibrary}}} */ (globalThis)
    .cudaforgeLibraries;

/** @returns {Promise<PlotLibrary>} */
export const loadPlot = async () => inline()?.plot ?? import("./vendor/plot.js");

/** @returns {Promise<CodeMirrorLibrary>} */
export const loadCodeMirror = async () => inline()?.codemirror ?? import("./vendor/codemirror.js");

/**
 * An element with its attributes and children; strings become text.
 * @param {string} tag
 * @param {Record<string, string | number | boolean | null | undefined>} attributes
 * @param {...(Node | string | null)} children
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * The same for SVG.
 * @param {string} tag
 * @param {Record<string, string | number | null | undefined>} attributes
 * @param {...(Node | string)} children
 */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * A link that the server gave, or nothing where it is none of ours: no scheme, so no `javascript:`.
 * @param {string} href
 */
export const ownLink = (href) => (/^[/?#.]/.test(href) && !href.startsWith("//") ? href : null);

/**
 * An element that the server rendered readable and that draws itself over its data when it comes near the view.
 *
 * What the server rendered stays, in a closed `<details>`: it is the text of the chart. If the drawing fails, it is
 * what one sees.
 * @template Data
 */
export class Island extends HTMLElement {
  /** @type {Data | null} */
  #data = null;
  #box = make("div", { class: "cf-box" });
  #width = 0;
  #begun = false;

  /** What the closed fallback is called. */
  static fallback = "as a table";

  connectedCallback() {
    if (this.#box.parentNode)
      sizes.observe(this.#box); // moved within the page
    else if (!this.#begun) sight.observe(this);
  }

  disconnectedCallback() {
    sight.unobserve(this);
    sizes.unobserve(this.#box);
  }

  /** The element is near the view: wrap the fallback, draw, and draw again when the width changes. */
  async appear() {
    sight.unobserve(this);
    this.#begun = true;
    try {
      this.#data = dataOf(this);
      await this.load();
      const name = /** @type {typeof Island} */ (this.constructor).fallback;
      const details = make("details", { class: "cf-fallback" }, make("summary", {}, name), ...fallbackOf(this));
      this.append(this.#box, details);
      this.#redraw();
      this.dataset.drawn = "";
      sizes.observe(this.#box);
    } catch (error) {
      this.#fail(error);
    }
  }

  /**
   * Takes over what a newer copy of this element says, without a flicker.
   * @param {Element} newer not in the page
   * @returns {boolean} whether it could
   */
  renew(newer) {
    const details = this.querySelector(":scope > details.cf-fallback");
    if (this.dataset.drawn !== "" || !details) return false;
    try {
      this.#data = dataOf(newer);
      const script = document.importNode(/** @type {Element} */ (newer.querySelector(DATA)), true);
      this.querySelector(DATA)?.replaceWith(script);
      const [summary] = details.children;
      details.replaceChildren(summary, ...fallbackOf(newer).map((node) => document.importNode(node, true)));
      this.#redraw();
    } catch (error) {
      this.#fail(error);
    }
    return true;
  }

  /** Drawn again where the width has changed. */
  resize() {
    try {
      if (Math.abs(this.#box.clientWidth - this.#width) > 1) this.#redraw();
    } catch (error) {
      this.#fail(error);
    }
  }

  #redraw() {
    this.#width = this.#box.clientWidth;
    if (this.#data === null || this.#width === 0) return;
    // A mark that had the focus has it again.
    const marks = () => [.../** @type {NodeListOf<SVGElement>} */ (this.#box.querySelectorAll("[data-tip]"))];
    const focused = marks().findIndex((mark) => mark === document.activeElement);
    this.render(this.#data, this.#box, this.#width);
    if (focused >= 0) marks()[focused]?.focus({ preventScroll: true });
  }

  /** @param {unknown} error */
  #fail(error) {
    console.error(this.localName, error);
    this.dataset.drawn = "failed";
    this.#box.replaceChildren(make("p", { class: "cf-note" }, "This could not be drawn; here is what it is made of."));
    this.prepend(this.#box);
    this.querySelector(":scope > details.cf-fallback")?.setAttribute("open", "");
  }

  /** Loads what `render` needs. @returns {Promise<void>} */
  async load() {}

  /**
   * Draws `data` into `box`, replacing what is there.
   * @param {Data} _data
   * @param {HTMLElement} _box
   * @param {number} _width of the box, CSS pixels
   */
  render(_data, _box, _width) {}
}

const DATA = ':scope > script[type="application/json"]';

/** @param {Element} island */
const dataOf = (island) => JSON.parse(island.querySelector(DATA)?.textContent ?? "");

/** What the server wrote to be read. @param {Element} island */
const fallbackOf = (island) => [...island.childNodes].filter((node) => node !== island.querySelector(DATA));

const sight = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting && target instanceof Island) void target.appear();
    }
  },
  { rootMargin: "400px" },
);

const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const island = target.parentElement;
    if (island instanceof Island) requestAnimationFrame(() => island.resize());
  }
});

/**
 * A verdict's shape within 12 by 12, filled or stroked, and its colour: those of the pages (charts.py), without detail.
 * @type {Record<string, {shape: string, filled: boolean, colour: string}>}
 */
export const VERDICTS = {
  PASSED: { shape: "M6 1A5 5 0 1 1 6 11A5 5 0 1 1 6 1", filled: true, colour: "var(--v-passed)" },
  BUILD_FAILED: { shape: "M2 2 10 10M10 2 2 10", filled: false, colour: "var(--v-build-failed)" },
  RUNTIME_ERROR: { shape: "M6 .8 11.6 10.8H.4z", filled: true, colour: "var(--v-runtime-error)" },
  TIMEOUT: { shape: "M1.5 1H10.5L7 6 10.5 11H1.5L5 6z", filled: true, colour: "var(--v-timeout)" },
  INCORRECT: { shape: "M1.5 4.2H10.5M1.5 7.8H10.5M8.2 1.2 3.8 10.8", filled: false, colour: "var(--v-incorrect)" },
  REJECTED: {
    shape: "M6 1.2A4.8 4.8 0 1 1 6 10.8 4.8 4.8 0 1 1 6 1.2M2.7 9.3 9.3 2.7",
    filled: false,
    colour: "var(--v-rejected)",
  },
  INFRASTRUCTURE: { shape: "M6 .5 11.5 6 6 11.5.5 6z", filled: true, colour: "var(--v-infrastructure)" },
};

/** A round that came to no kernel, or one under way. */
export const NO_VERDICT = { shape: "M6 5.5v1", filled: false, colour: "var(--muted)" };

/** `2.31x` @param {number} value */
export const times = (value) => `${value.toFixed(value < 0.1 ? 3 : 2)}x`;

/** `[2.28, 2.35]` @param {number} low @param {number} high */
export const bracket = (low, high) => `[${low.toFixed(2)}, ${high.toFixed(2)}]`;

/** `42 %`, `0.4 %`, `<0.1 %`, of a share 0..1. @param {number} share */
export function percent(share) {
  if (share > 0 && share < 0.0005) return "<0.1 %";
  return `${share > 0 && share < 0.00995 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;
}

/** `20 ms`, `0.4 s`, `12 s`, `4m12s`, `2h03m`, `3d04h` @param {number} seconds */
export function duration(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 0.0995) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 9.95) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86400)}d${two(Math.floor((whole % 86400) / 3600))}h`;
}

/** Four significant digits, no exponent between 1e-3 and 1e9. @param {number} value */
export const significant = (value) =>
  value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e9)
    ? value.toExponential(2)
    : String(Number(value.toPrecision(4)));

/** `12.34 µs`, `1.234 ms` @param {number} value */
export function microseconds(value) {
  if (value < 1000) return `${significant(value)} µs`;
  return value < 1e6 ? `${significant(value / 1000)} ms` : `${significant(value / 1e6)} s`;
}

/** `3.35 T`, `12.1 G`: three digits and an SI prefix. @param {number} value */
export function si(value) {
  const prefixes = ["", "k", "M", "G", "T", "P", "E"];
  const step = value > 0 ? Math.min(Math.max(Math.floor(Math.log10(value) / 3), 0), 6) : 0;
  return `${Number((value / 1000 ** step).toPrecision(3))} ${prefixes[step]}`;
}
