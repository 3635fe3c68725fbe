/**
 * `<cf-errors>`: where an output is wrong. The record holds how many elements are, the first few of them, and in words
 * where they lie; the map shows that and no more.
 */

import { ChartIsland, chart, note } from "./chart.js";
import { make, percent, significant } from "./core.js";

/** @import { Errors, OutputErrors } from "./types.d.ts" */

/** @extends {ChartIsland<Errors>} */
export class ErrorsElement extends ChartIsland {
  /**
   * @override
   * @param {Errors} data
   * @param {HTMLElement} box
   * @param {number} width
   */
  render(data, box, width) {
    if (!data.outputs.length) return box.replaceChildren(note("No output differs."));
    box.replaceChildren(...data.outputs.flatMap((output) => this.#output(output, width)));
  }

  /** @param {OutputErrors} output @param {number} width @returns {Element[]} */
  #output(output, width) {
    const share = output.mismatched / Math.max(output.total, 1);
    const count = (/** @type {number} */ value) => value.toLocaleString("en");
    const name = output.name === "output" ? "the output" : `output ${output.name}`;
    const shape = output.shape ? ` [${output.shape.join(", ")}]` : "";
    const head = make(
      "p",
      { class: "cf-errors-head" },
      make("b", {}, `${name}${shape}`),
      ` ${count(output.mismatched)} of ${count(output.total)} elements are wrong (${percent(share)})`,
    );
    const parts = /** @type {Element[]} */ ([head]);
    if (output.pattern) parts.push(make("p", { class: "cf-errors-pattern" }, output.pattern));
    const map =
      output.shape?.length && output.shape.every((size) => size > 0) ? this.#map(output, output.shape, width) : null;
    if (map) parts.push(...map);
    else parts.push(note("The shape of this output is not recorded: there is no map."));
    return [make("div", { class: "cf-errors-output" }, ...parts)];
  }

  /**
   * The output as a rectangle, the region that the errors lie within, and the places that are recorded.
   * @param {OutputErrors} output
   * @param {number[]} shape
   * @param {number} width
   * @returns {Element[]}
   */
  #map(output, shape, width) {
    const Plot = this.Plot;
    const within = region(output, shape);
    const [down, across] = axes(shape, within.mentioned);
    const rows = down === null ? 1 : shape[down];
    const columns = shape[across];
    const [top, bottom] = down === null ? [0, 1] : within.bounds[down];
    const [left, right] = within.bounds[across];
    const places = output.places
      .filter((place) => place.index.length === shape.length)
      .map((place) => ({ ...place, x: place.index[across] + 0.5, y: (down === null ? 0 : place.index[down]) + 0.5 }));

    const margin = { marginLeft: 54, marginRight: 54, marginTop: 18, marginBottom: 8 };
    const wide = Math.min(width, 560);
    const inner = wide - margin.marginLeft - margin.marginRight;
    const high = Math.round(Math.min(Math.max((inner * rows) / columns, down === null ? 18 : 56), 200));
    const seen = 2; // pixels, at the least
    const thick = (
      /** @type {number} */ from,
      /** @type {number} */ to,
      /** @type {number} */ size,
      /** @type {number} */ pixels,
    ) => {
      const least = (seen * size) / pixels;
      return to - from >= least ? [from, to] : [Math.min(from, size - least), Math.min(from, size - least) + least];
    };
    const [x1, x2] = thick(left, right, columns, inner);
    const [y1, y2] = thick(top, bottom, rows, high);
    const edges = (
      /** @type {number} */ from,
      /** @type {number} */ to,
      /** @type {number} */ size,
      /** @type {number} */ gap,
    ) =>
      [0, from, to - 1, size].filter(
        (edge, i, all) => edge >= 0 && all.slice(0, i).every((other) => Math.abs(edge - other) > gap * size),
      );

    const where = within.known
      ? `the errors lie ${words(within.bounds, shape)}`
      : "the region of the errors is not known";
    const label = `Map of ${output.name}: ${where}.`;
    const svg = chart(Plot, label, {
      width: wide,
      height: high + margin.marginTop + margin.marginBottom,
      ...margin,
      x: { domain: [0, columns] },
      y: { domain: [0, rows], reverse: true, ...(down === null ? { axis: null } : {}) },
      marks: [
        Plot.rect([0], {
          x1: 0,
          x2: columns,
          y1: 0,
          y2: rows,
          fill: "var(--line)",
          fillOpacity: 0.4,
          stroke: "var(--line)",
        }),
        within.known
          ? Plot.rect([0], { x1, x2, y1, y2, fill: "var(--bad)", fillOpacity: 0.45, stroke: "var(--bad)" })
          : null,
        Plot.dot(places, { x: "x", y: "y", symbol: "times", r: 4, stroke: "var(--text)", strokeWidth: 1.5 }),
        Plot.axisX(edges(left, right, columns, 0.1), { anchor: "top", tickSize: 3, label: null, tickFormat: String }),
        down === null
          ? null
          : Plot.axisY(edges(top, bottom, rows, 0.12), { tickSize: 3, label: null, tickFormat: String }),
      ],
    });
    const folded = shape.length - (down === null ? 1 : 2);
    const sides = down === null ? `dimension ${across} across` : `dimension ${down} down, ${across} across`;
    const legend = [
      sides + (folded ? `, ${folded} more folded into them` : ""),
      within.known ? "red: the errors lie within" : "",
      places.length
        ? places.length === 1
          ? "×: the first wrong place, the one that is recorded"
          : `×: the first ${places.length} wrong places, all that are recorded`
        : "",
    ];
    const first = output.places[0];
    const value = (/** @type {number | null} */ number) => (number === null ? "not finite" : significant(number));
    return [
      svg,
      make("p", { class: "cf-legend" }, `${legend.filter(Boolean).join("; ")}.`),
      ...(first
        ? [
            make(
              "p",
              { class: "cf-errors-first" },
              `first at [${first.index.join(", ")}]: expected ${value(first.expected)}, got ${value(first.got)}`,
            ),
          ]
        : []),
    ];
  }
}

/**
 * The box that the errors lie within, from the check's own words (engine/check.py): every dimension's [from, to).
 * @param {OutputErrors} output
 * @param {number[]} shape
 */
function region(output, shape) {
  const bounds = shape.map((size) => [0, size]);
  const mentioned = new Set();
  let known = /\bevery element is wrong/.test(output.pattern); // or nearly every
  for (const [, from, to, dim] of output.pattern.matchAll(
    /at indices (?:>= )?(\d+)(?: to (\d+))? of dimension (\d+)/g,
  )) {
    const size = shape[Number(dim)];
    if (size === undefined || Number(from) >= size) continue;
    bounds[Number(dim)] = [Number(from), to === undefined ? size : Math.min(Number(to) + 1, size)];
    mentioned.add(Number(dim));
    known = true;
  }
  return { bounds, mentioned: [...mentioned], known };
}

/**
 * The dimensions to show: those that the pattern speaks of first, then the last ones.
 * @param {number[]} shape
 * @param {number[]} mentioned
 * @returns {[number | null, number]}
 */
function axes(shape, mentioned) {
  const last = shape.map((_, dim) => dim).reverse();
  const picked = [...new Set([...mentioned, ...last.filter((dim) => shape[dim] > 1), ...last])]
    .slice(0, 2)
    .sort((a, b) => a - b);
  return picked.length === 1 ? [null, picked[0]] : [picked[0], picked[1]];
}

/** @param {number[][]} bounds @param {number[]} shape */
const words = (bounds, shape) =>
  bounds
    .map(([from, to], dim) =>
      from === 0 && to === shape[dim] ? null : `at indices ${from} to ${to - 1} of dimension ${dim}`,
    )
    .filter(Boolean)
    .join(" and ") || "everywhere";

customElements.define("cf-errors", ErrorsElement);
