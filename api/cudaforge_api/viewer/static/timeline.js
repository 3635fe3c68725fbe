/** `<cf-timeline>`: one lane for each stage, so that one sees where the time went. */

import { ChartIsland, chart, note, tips } from "./chart.js";
import { draw, duration } from "./core.js";

/** @import { Gap, Lane, LaneKind, Span, Timeline } from "./types.d.ts" */

const ROW = 22;
const TOP = 20;
const AXIS = 24;
/** A gap is drawn this long, as a share of the time that was worked; the axis is cut there. */
const CUT = 0.06;

/** Models think, machines work, waiting is nobody's. @type {Partial<Record<LaneKind, string>>} */
const COLOURS = { coder: "var(--muted)", judge: "var(--muted)", waiting: "var(--tie)", verify: "var(--ok)" };

const SHORT = /** @type {Partial<Record<LaneKind, string>>} */ ({ waiting: "waiting", baseline: "baseline" });

/** @extends {ChartIsland<Timeline>} */
export class TimelineElement extends ChartIsland {
  /**
   * @override
   * @param {Timeline} data
   * @param {HTMLElement} box
   * @param {number} width
   */
  render(data, box, width) {
    const Plot = this.Plot;
    const lanes = data.lanes.filter((lane) => lane.spans.length);
    if (!lanes.length || data.total_s <= 0) {
      return box.replaceChildren(note("Nothing has been timed yet."));
    }
    const narrow = width < 480;
    const marginLeft = narrow ? 58 : 132;
    const marginRight = narrow ? 44 : 64;
    const clock = cutGaps(data);
    const name = (/** @type {Lane} */ lane) => (narrow ? (SHORT[lane.kind] ?? lane.kind) : lane.name);
    const sum = (/** @type {Lane} */ lane) => lane.spans.reduce((total, span) => total + span.end_s - span.start_s, 0);
    const spans = lanes.flatMap((lane, row) => lane.spans.map((span) => ({ ...span, row, lane })));
    spans.sort((a, b) => a.start_s - b.start_s || a.row - b.row);
    const bottom = TOP + ROW * lanes.length;
    const second = (width - marginLeft - marginRight) / clock.length; // in pixels

    const svg = chart(
      Plot,
      summary(data, lanes, sum),
      {
        width,
        height: bottom + AXIS,
        marginLeft,
        marginRight,
        marginTop: TOP,
        marginBottom: AXIS,
        x: { domain: [0, clock.length], axis: null },
        y: { domain: [0, lanes.length], reverse: true, axis: null },
        marks: [
          Plot.ruleY(
            lanes.map((_, row) => row + 1),
            { stroke: "var(--line)" },
          ),
          Plot.rectX(spans, {
            x1: (/** @type {Span} */ span) => clock.at(span.start_s),
            // One pixel at the least: what happened is seen, however short it was.
            x2: (/** @type {Span} */ span) => Math.max(clock.at(span.end_s), clock.at(span.start_s) + 1 / second),
            y1: (/** @type {{row: number}} */ span) => span.row + 0.2,
            y2: (/** @type {{row: number}} */ span) => span.row + 0.8,
            fill: (/** @type {{lane: Lane}} */ span) => COLOURS[span.lane.kind] ?? "var(--accent)",
            title: (/** @type {Span & {lane: Lane}} */ span) =>
              span.lane.name +
              (span.round === null ? "" : `, round ${span.round}`) +
              `: ${duration(span.end_s - span.start_s)}` +
              (span.title ? `\n${span.title}` : "") +
              `\nfrom ${duration(span.start_s)}`,
          }),
          Plot.text(lanes, {
            x: 0,
            y: (/** @type {Lane} */ _, /** @type {number} */ row) => row + 0.5,
            dx: -8,
            text: name,
            textAnchor: "end",
            fill: "var(--text)",
          }),
          Plot.text(lanes, {
            x: clock.length,
            y: (/** @type {Lane} */ _, /** @type {number} */ row) => row + 0.5,
            dx: 6,
            text: (/** @type {Lane} */ lane) => duration(sum(lane)),
            textAnchor: "start",
            fill: "var(--muted)",
            fontFamily: "var(--mono)",
          }),
        ],
      },
      { interactive: true },
    );
    const x = (/** @type {number} */ at) => marginLeft + at * second;
    svg.prepend(...cuts(clock, x, bottom, narrow));
    svg.append(...axis(clock, x, bottom, width), ...rounds(spans, clock, x));
    box.replaceChildren(tips(svg));
  }
}

/**
 * @typedef {object} Clock
 * @property {number} length of the axis, seconds as drawn
 * @property {(second: number) => number} at where a moment is drawn
 * @property {(Gap & {from: number, to: number})[]} cut the gaps that are drawn shorter than they were, and where
 */

/**
 * A run can wait for hours between minutes of work: gaps that would fill the chart are cut to a strip of fixed length.
 * @param {Timeline} data
 * @returns {Clock}
 */
function cutGaps(data) {
  /** @type {Gap[]} */
  const gaps = [];
  for (const gap of [...data.gaps].sort((a, b) => a.start_s - b.start_s)) {
    const before = gaps.at(-1);
    const start_s = Math.max(gap.start_s, before?.end_s ?? 0, 0);
    const end_s = Math.min(gap.end_s, data.total_s);
    if (end_s > start_s) gaps.push({ ...gap, start_s, end_s });
  }
  const worked = data.total_s - gaps.reduce((sum, gap) => sum + gap.end_s - gap.start_s, 0);
  const short = Math.max(CUT * worked, 1e-3);
  const long = gaps.filter((gap) => gap.end_s - gap.start_s > short);
  const at = (/** @type {number} */ second) => {
    let place = second;
    for (const gap of long) {
      const length = gap.end_s - gap.start_s;
      if (second >= gap.end_s) place -= length - short;
      else if (second > gap.start_s) place -= ((second - gap.start_s) / length) * (length - short);
    }
    return place;
  };
  return {
    length: at(data.total_s),
    at,
    cut: long.map((gap) => ({ ...gap, from: at(gap.start_s), to: at(gap.end_s) })),
  };
}

/**
 * The strips where the axis is cut.
 * @param {Clock} clock
 * @param {(at: number) => number} x
 * @param {number} bottom
 * @param {boolean} narrow
 */
function cuts(clock, x, bottom, narrow) {
  return clock.cut.map((gap) => {
    const [from, to] = [x(gap.from), x(gap.to)];
    const text = `${gap.title ? `${gap.title}: ` : ""}${duration(gap.end_s - gap.start_s)}`;
    const middle = (from + to) / 2;
    const parts = [
      draw("title", {}, text),
      draw("rect", { x: from, y: TOP, width: to - from, height: bottom - TOP, class: "cf-gap" }),
      draw("path", { d: `M${from},${TOP}V${bottom}M${to},${TOP}V${bottom}`, class: "cf-gap-edge" }),
    ];
    if (!narrow) {
      const place = `rotate(-90 ${middle} ${(TOP + bottom) / 2})`;
      const short = text.length > bottom / 6 ? duration(gap.end_s - gap.start_s) : text;
      parts.push(
        draw(
          "text",
          {
            x: middle,
            y: (TOP + bottom) / 2,
            dy: "0.32em",
            transform: place,
            fill: "var(--muted)",
            "aria-hidden": "true",
          },
          short,
        ),
      );
    }
    return draw("g", {}, ...parts);
  });
}

/**
 * The time since the run began, at round moments that are not within a cut.
 * @param {Clock} clock
 * @param {(at: number) => number} x
 * @param {number} bottom
 * @param {number} width
 */
function axis(clock, x, bottom, width) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const wanted = clock.length / Math.max(width / 90, 2);
  const step = steps.find((each) => each >= wanted) ?? 86400 * Math.ceil(wanted / 86400);
  const edges = [0, ...clock.cut.flatMap((gap) => [gap.start_s, gap.end_s]), Infinity];
  const parts = [];
  let free = -Infinity; // where the last label ends
  for (let i = 0; i < edges.length; i += 2) {
    const from = Math.ceil(edges[i] / step) * step;
    for (let second = from; second <= edges[i + 1] && clock.at(second) <= clock.length; second += step) {
      const place = x(clock.at(second));
      const text = moment(Number(second.toFixed(3)));
      if (place - 3.2 * text.length < free) continue;
      free = place + 3.2 * text.length + 8;
      parts.push(
        draw("path", { d: `M${place},${bottom}v4`, stroke: "var(--muted)" }),
        draw("text", { x: place, y: bottom + 15, fill: "var(--muted)" }, text),
      );
    }
  }
  return [draw("g", { class: "cf-axis", "aria-hidden": "true" }, ...parts)];
}

/** As on a clock: `1m`, `1m30s`, `2h`. @param {number} second */
const moment = (second) => duration(second).replace(/(?<=m)00s$|(?<=h)00m$|(?<=d)00h$/, "");

/**
 * Where each round begins, as a number above the lanes.
 * @param {(Span & {row: number})[]} spans in the order of time
 * @param {Clock} clock
 * @param {(at: number) => number} x
 */
function rounds(spans, clock, x) {
  const parts = [];
  let shown = -1;
  let free = -Infinity;
  for (const span of spans) {
    if (span.round === null || span.round <= shown) continue;
    shown = span.round;
    const place = x(clock.at(span.start_s));
    const text = `#${span.round}`;
    if (place < free) continue;
    free = place + 6.5 * text.length + 6;
    parts.push(
      draw("path", { d: `M${place},${TOP - 12}V${TOP}`, stroke: "var(--muted)" }),
      draw("text", { x: place + 3, y: TOP - 6, "text-anchor": "start", fill: "var(--muted)" }, text),
    );
  }
  return [draw("g", { class: "cf-rounds", "aria-hidden": "true" }, ...parts)];
}

/**
 * @param {Timeline} data
 * @param {Lane[]} lanes
 * @param {(lane: Lane) => number} sum
 */
function summary(data, lanes, sum) {
  const parts = [...lanes].sort((a, b) => sum(b) - sum(a)).map((lane) => `${lane.name} ${duration(sum(lane))}`);
  return `Time line of ${duration(data.total_s)}: ${parts.join(", ")}.`;
}

customElements.define("cf-timeline", TimelineElement);
