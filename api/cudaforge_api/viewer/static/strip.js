/** `<cf-strip>`: every raw sample as a tick, the median and its interval, one strip for each thing that was timed. */

import { ChartIsland, chart, note, ticks } from "./chart.js";
import { make, microseconds } from "./core.js";

/** @import { Strip, StripSeries } from "./types.d.ts" */

const ROW = 46;
const AXIS = 26;
/** More ticks than these are not told apart. */
const MOST = 3000;

/** @type {Record<StripSeries["kind"], string>} */
const COLOURS = { kernel: "var(--accent)", eager: "var(--muted)", compile: "var(--muted)" };

/** @extends {ChartIsland<Strip>} */
export class StripElement extends ChartIsland {
  /**
   * @override
   * @param {Strip} data
   * @param {HTMLElement} box
   * @param {number} width
   */
  render(data, box, width) {
    const Plot = this.Plot;
    const series = data.series.filter((each) => each.samples.length);
    if (!series.length) return box.replaceChildren(note("No sample is recorded."));
    const samples = series.flatMap((each, row) => thin(each.samples).map((value) => ({ value, row, kind: each.kind })));
    const least = Math.min(...series.map((each) => Math.min(...each.samples)));
    const most = Math.max(...series.map((each) => Math.max(...each.samples)));
    // From nought, so that lengths compare; unless that would press the samples into one line.
    const low = least < 0.75 * most ? 0 : least - 0.15 * (most - least || most);
    const high = most + 0.04 * (most - low);
    const inMs = most >= 10_000;
    const marginLeft = 10;
    const bottom = ROW * series.length;

    const svg = chart(Plot, summary(series), {
      width,
      height: bottom + AXIS,
      marginLeft,
      marginRight: 10,
      marginTop: 0,
      marginBottom: AXIS,
      x: { domain: [low, high] },
      y: { domain: [0, series.length], reverse: true, axis: null },
      marks: [
        Plot.gridX(ticks(low, high, width / 110), { stroke: "var(--line)", strokeOpacity: 1 }),
        Plot.axisX(ticks(low, high, width / 110), {
          tickSize: 0,
          label: null,
          tickFormat: (/** @type {number} */ value) => (inMs ? `${value / 1000} ms` : `${value} µs`),
        }),
        // The baseline against itself: a difference within this band is noise.
        data.noise
          ? Plot.rect(
              series.map((each, row) => ({ ...each, row })).filter((each) => each.kind === "eager"),
              {
                x1: (each) => each.median * (data.noise?.low ?? 1),
                x2: (each) => each.median * (data.noise?.high ?? 1),
                y1: (each) => each.row + 0.42,
                y2: (each) => each.row + 0.96,
                fill: "var(--warn)",
                fillOpacity: 0.25,
              },
            )
          : null,
        Plot.ruleX(samples, {
          x: "value",
          y1: (sample) => sample.row + 0.5,
          y2: (sample) => sample.row + 0.88,
          stroke: (sample) => COLOURS[/** @type {StripSeries["kind"]} */ (sample.kind)],
          strokeOpacity: samples.length > 300 ? 0.3 : 0.5,
        }),
        Plot.rectX(series, {
          x1: "low",
          x2: "high",
          y1: (_, row) => row + 0.44,
          y2: (_, row) => row + 0.94,
          fill: "var(--text)",
          fillOpacity: 0.15,
        }),
        Plot.ruleX(series, {
          x: "median",
          y1: (_, row) => row + 0.4,
          y2: (_, row) => row + 0.98,
          stroke: "var(--text)",
          strokeWidth: 2,
        }),
        Plot.text(series, {
          frameAnchor: "left",
          y: (_, row) => row + 0.22,
          textAnchor: "start",
          dx: 5,
          text: (each) =>
            `${each.name}   ${microseconds(each.median)}  [${microseconds(each.low)}, ${microseconds(each.high)}]   ` +
            `${each.samples.length} samples`,
          fill: "var(--text)",
          stroke: "var(--panel)",
          strokeWidth: 4,
          fontSize: 11,
        }),
      ],
    });
    const noise = data.noise ? "; shaded: eager against itself, the noise that a difference must clear" : "";
    box.replaceChildren(svg, make("p", { class: "cf-legend" }, `Each line is a sample; bold: the median${noise}.`));
  }
}

/** Every nth where there are too many to draw; their extremes stay. @param {number[]} samples */
function thin(samples) {
  if (samples.length <= MOST) return samples;
  const sorted = [...samples].sort((a, b) => a - b);
  const step = (sorted.length - 1) / (MOST - 1);
  return Array.from({ length: MOST }, (_, i) => sorted[Math.round(i * step)]);
}

/** @param {StripSeries[]} series */
const summary = (series) =>
  `Raw samples: ${series
    .map(
      (each) =>
        `${each.name} ${each.samples.length} samples, median ${microseconds(each.median)}, ` +
        `from ${microseconds(Math.min(...each.samples))} to ${microseconds(Math.max(...each.samples))}`,
    )
    .join("; ")}.`;

customElements.define("cf-strip", StripElement);
