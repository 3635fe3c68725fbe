/** What the charts share: one frame for Observable Plot, tips on hover and focus, labels that do not collide. */

import { Island, loadPlot, make } from "./core.js";

/** @typedef {import("./core.js").PlotLibrary} PlotLibrary */
/** @typedef {import("@observablehq/plot").PlotOptions} PlotOptions */

/**
 * An island that is drawn with Observable Plot.
 * @template Data
 * @extends {Island<Data>}
 */
export class ChartIsland extends Island {
  /** There from `load` on. @type {PlotLibrary} */
  Plot = /** @type {any} */ (null);

  /** @override */
  async load() {
    this.Plot = await loadPlot();
  }
}

/** What stands where there is nothing to draw. @param {string} text */
export const note = (text) => make("p", { class: "cf-note" }, text);

/**
 * A chart as SVG, in the page's font and colours.
 *
 * Without `interactive` it is one image with a label; with it, its marks can be reached (see `tips`).
 * @param {PlotLibrary} Plot
 * @param {string} label what the chart shows, and its main finding, in a sentence
 * @param {PlotOptions} options
 * @param {{interactive?: boolean}} [how]
 */
export function chart(Plot, label, options, { interactive = false } = {}) {
  const svg = Plot.plot({ className: "cf-plot", ...options });
  // Plot's own style element is against the page's security policy; elements.css has its rules.
  svg.querySelector("style")?.remove();
  // Plot names its groups for assistive technology, which takes no names of groups without a
  // role; tests and styles can use them.
  for (const group of svg.querySelectorAll("g[aria-label]")) {
    /** @type {SVGGElement} */ (group).dataset.mark = group.getAttribute("aria-label") ?? "";
    group.removeAttribute("aria-label");
  }
  svg.setAttribute("role", interactive ? "group" : "img");
  svg.setAttribute("aria-label", label);
  return svg;
}

/**
 * Turns the titles of a chart's marks into tips that show on hover and on focus. The chart is one stop for the Tab key;
 * arrows move from mark to mark, and a link is followed with Enter.
 *
 * A mark's title is its first line and what follows; it is the mark's name for a screen reader, too.
 * @param {Element} svg
 * @returns {HTMLElement} the chart with its tip
 */
export function tips(svg) {
  const tip = make("div", { class: "cf-tip", hidden: true, "aria-hidden": "true" });
  // Not the SVG listens: one that listens for focus is a stop of the Tab key in Chromium.
  const frame = make("div", { class: "cf-chart" }, svg, tip);
  /** @type {SVGElement[]} */
  const marks = [];
  for (const title of svg.querySelectorAll("title")) {
    const mark = /** @type {SVGElement} */ (title.parentNode);
    const text = title.textContent ?? "";
    title.remove();
    mark.dataset.tip = text;
    mark.setAttribute("aria-label", text.replaceAll("\n", ", "));
    mark.setAttribute("tabindex", marks.length ? "-1" : "0");
    if (mark.localName !== "a") mark.setAttribute("role", "img");
    marks.push(mark);
  }

  const show = (/** @type {SVGElement} */ mark) => {
    tip.replaceChildren(...(mark.dataset.tip ?? "").split("\n").map((line) => make("div", {}, line)));
    tip.hidden = false;
    const at = mark.getBoundingClientRect();
    const around = frame.getBoundingClientRect();
    const room = around.width - tip.offsetWidth;
    const left = at.left + at.width / 2 - around.left - tip.offsetWidth / 2;
    const anchor = mark.querySelector("[data-anchor]")?.getBoundingClientRect() ?? at;
    const above = anchor.top - around.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(0, Math.min(left, room))}px`;
    tip.style.top = `${above >= -24 ? above : anchor.bottom - around.top + 8}px`;
  };
  const hide = () => (tip.hidden = true);
  const markOf = (/** @type {Event} */ event) =>
    /** @type {SVGElement | null} */ (/** @type {Element} */ (event.target).closest("[data-tip]"));

  frame.addEventListener("pointerover", (event) => {
    const mark = markOf(event);
    if (mark) show(mark);
    else hide();
  });
  frame.addEventListener("pointerleave", hide);
  frame.addEventListener("focusin", (event) => {
    const mark = markOf(event);
    if (!mark) return;
    for (const each of marks) each.setAttribute("tabindex", each === mark ? "0" : "-1");
    show(mark);
  });
  frame.addEventListener("focusout", hide);
  frame.addEventListener("keydown", (event) => {
    const { key } = /** @type {KeyboardEvent} */ (event);
    const mark = markOf(event);
    if (key === "Escape") hide();
    const here = mark ? marks.indexOf(mark) : -1;
    const steps = /** @type {Record<string, number>} */ ({
      ArrowRight: here + 1,
      ArrowDown: here + 1,
      ArrowLeft: here - 1,
      ArrowUp: here - 1,
      Home: 0,
      End: marks.length - 1,
    });
    const next = marks[steps[key] ?? -1];
    if (!mark || !next) return;
    event.preventDefault();
    next.focus();
  });
  return frame;
}

/**
 * Places for labels on a line so that no two are nearer than `gap`, each as near to where it belongs as that allows.
 * @template {{at: number}} Label
 * @param {Label[]} labels
 * @param {number} gap
 * @param {number} low
 * @param {number} high
 * @returns {(Label & {place: number})[]}
 */
export function spread(labels, gap, low, high) {
  const placed = [...labels].sort((a, b) => a.at - b.at).map((label) => ({ ...label, place: label.at }));
  for (const [i, label] of placed.entries()) {
    label.place = Math.max(label.place, i ? placed[i - 1].place + gap : low);
  }
  for (let i = placed.length - 1, most = high; i >= 0; most = placed[i--].place - gap) {
    placed[i].place = Math.min(placed[i].place, most);
  }
  return placed;
}

/**
 * At most `most` round numbers from `low` to `high`.
 * @param {number} low
 * @param {number} high
 * @param {number} most
 */
export function ticks(low, high, most) {
  const rough = (high - low) / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++)
    found.push(Number((i * step).toPrecision(12)));
  return found;
}
