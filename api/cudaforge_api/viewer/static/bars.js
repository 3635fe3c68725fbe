/** `<cf-light>` and `<cf-stalls>`: horizontal bars, each with its number, and where the parent was. */

import { ChartIsland, chart, note } from "./chart.js";
import { make, percent } from "./core.js";

/** @import { Light, Stalls } from "./types.d.ts" */

/** @typedef {{name: string, value: number, parent: number | null}} Bar values are percents */

const ROW = 22;

/**
 * @param {import("./core.js").PlotLibrary} Plot
 * @param {string} label
 * @param {Bar[]} bars
 * @param {number} width
 * @param {{full: boolean, colour?: (bar: Bar) => string}} how whether the axis goes to 100 %
 */
function barChart(Plot, label, bars, width, { full, colour = () => "var(--accent)" }) {
  const longest = Math.max(...bars.map((bar) => bar.name.length));
  const marginLeft = Math.min(14 + 6.2 * longest, width * 0.42);
  const fits = Math.floor((marginLeft - 14) / 6);
  const withParent = bars.some((bar) => bar.parent !== null);
  const most = Math.max(...bars.map((bar) => Math.max(bar.value, bar.parent ?? 0)), 1e-9);
  const middle = (/** @type {Bar} */ _, /** @type {number} */ row) => row + 0.5;
  return chart(Plot, label, {
    width,
    height: ROW * bars.length + 4,
    marginLeft,
    marginRight: withParent ? 104 : 50,
    marginTop: 2,
    marginBottom: 2,
    x: { domain: [0, full ? Math.max(100, most) : most], axis: null },
    y: { domain: [0, bars.length], reverse: true, axis: null },
    marks: [
      // The whole that a bar is a part of.
      full
        ? Plot.rectX(bars, {
            x1: 0,
            x2: 100,
            y1: (_, i) => i + 0.2,
            y2: (_, i) => i + 0.8,
            fill: "var(--line)",
            fillOpacity: 0.5,
          })
        : null,
      Plot.rectX(bars, { x1: 0, x2: "value", y1: (_, i) => i + 0.2, y2: (_, i) => i + 0.8, fill: colour }),
      Plot.ruleX(
        bars.map((bar, row) => ({ ...bar, row })).filter((bar) => bar.parent !== null),
        {
          x: "parent",
          y1: (bar) => bar.row + 0.08,
          y2: (bar) => bar.row + 0.92,
          stroke: "var(--text)",
          strokeWidth: 2,
        },
      ),
      Plot.text(bars, {
        x: 0,
        y: middle,
        dx: -8,
        textAnchor: "end",
        text: (bar) => (bar.name.length > fits ? `${bar.name.slice(0, fits - 1)}…` : bar.name),
      }),
      Plot.text(bars, {
        frameAnchor: "right",
        y: middle,
        dx: 44,
        textAnchor: "end",
        fontFamily: "var(--mono)",
        text: (bar) => percent(bar.value / 100),
      }),
      Plot.text(bars, {
        frameAnchor: "right",
        y: middle,
        dx: 98,
        textAnchor: "end",
        fontFamily: "var(--mono)",
        fill: "var(--muted)",
        text: (bar) => (bar.parent === null ? "" : change(bar.value - bar.parent)),
      }),
    ],
  });
}

/** Points of percent since the parent: `+3`, `−12`. @param {number} points */
function change(points) {
  const rounded = Math.round(points);
  return rounded === 0 ? "=" : `${rounded > 0 ? "+" : "−"}${Math.abs(rounded)}`;
}

/** What the marks mean, under a chart that compares. @param {boolean} compares */
const legend = (compares) =>
  compares
    ? make("p", { class: "cf-legend" }, make("span", { class: "cf-tick" }), "the parent; change in points")
    : null;

/** @param {Bar[]} bars */
const spoken = (bars) =>
  bars
    .map(
      (bar) =>
        `${bar.name} ${percent(bar.value / 100)}${bar.parent === null ? "" : `, parent ${percent(bar.parent / 100)}`}`,
    )
    .join("; ");

/** @extends {ChartIsland<Light>} */
export class LightElement extends ChartIsland {
  /**
   * @override
   * @param {Light} data
   * @param {HTMLElement} box
   * @param {number} width
   */
  render(data, box, width) {
    if (!data.bars.length) return box.replaceChildren(note("No unit was measured."));
    const bars = data.bars.map(({ name, percent, parent }) => ({ name, value: percent, parent }));
    const svg = barChart(this.Plot, `Percent of peak: ${spoken(bars)}.`, bars, width, { full: true });
    box.replaceChildren(svg);
    const below = legend(bars.some((bar) => bar.parent !== null));
    if (below) box.append(below);
  }
}

/** @extends {ChartIsland<Stalls>} */
export class StallsElement extends ChartIsland {
  /**
   * @override
   * @param {Stalls} data
   * @param {HTMLElement} box
   * @param {number} width
   */
  render(data, box, width) {
    const remark = data.note ? note(data.note) : null;
    if (!data.reasons.length) {
      return box.replaceChildren(remark ?? note("No stall was sampled."));
    }
    const all = data.reasons.map(({ name, share, parent }) => ({
      name,
      value: 100 * share,
      parent: parent === null ? null : 100 * parent,
    }));
    // What is under half a percent on both sides says nothing one by one.
    const shown = all.filter((bar, i) => i < 14 && Math.max(bar.value, bar.parent ?? 0) >= 0.5);
    const rest = all.filter((bar) => !shown.includes(bar));
    if (rest.length) {
      const sum = (/** @type {"value" | "parent"} */ key) => rest.reduce((total, bar) => total + (bar[key] ?? 0), 0);
      const parent = rest.some((bar) => bar.parent !== null) ? sum("parent") : null;
      shown.push({ name: `${rest.length} more`, value: sum("value"), parent });
    }
    // `selected` is a warp that issues an instruction: the one that is no stall.
    const colour = (/** @type {Bar} */ bar) => (bar.name === "selected" ? "var(--ok)" : "var(--accent)");
    const svg = barChart(this.Plot, `What the warps did: ${spoken(shown)}.`, shown, width, { full: false, colour });
    box.replaceChildren(svg);
    const below = legend(shown.some((bar) => bar.parent !== null));
    if (below) box.append(below);
    if (remark) box.append(remark);
  }
}

customElements.define("cf-light", LightElement);
customElements.define("cf-stalls", StallsElement);
