/** `<cf-curve>`: speedup over eager by round, the best so far, and the lines that it is measured against. */

import { ChartIsland, chart, note, spread, ticks, tips } from "./chart.js";
import { NO_VERDICT, VERDICTS, bracket, draw, ownLink, times } from "./core.js";

/** @import { Curve, CurveRound } from "./types.d.ts" */

const HEIGHT = 260;
const TOP = 14;
/** Below the axis of speedups: a rail with the rounds that have none. */
const RAIL = 22;
const AXIS = 34;

/** @extends {ChartIsland<Curve>} */
export class CurveElement extends ChartIsland {
  /**
   * @override
   * @param {Curve} data
   * @param {HTMLElement} box
   * @param {number} width
   */
  render(data, box, width) {
    const Plot = this.Plot;
    if (!data.rounds.length) return box.replaceChildren(note("No round has finished yet."));
    const narrow = width < 480;
    const marginLeft = 38;
    const marginRight = narrow ? 62 : 128;
    const bottom = HEIGHT - AXIS - RAIL; // of the speedups
    const passed = data.rounds.filter((round) => round.speedup !== null);
    const failed = data.rounds.filter((round) => round.speedup === null);
    const last = Math.max(data.rounds[data.rounds.length - 1].n, 1);

    const measured = passed.flatMap((round) => [round.speedup ?? 1, round.low ?? 1, round.high ?? 1]);
    const most = Math.max(1, data.compile ?? 1, data.verified?.high ?? 1, ...measured);
    // The speed of light is a line where it is near, and a remark where it would press all else flat.
    const lightFits = data.light !== null && data.light < 2.5 * most;
    const top = 1.06 * (lightFits ? Math.max(most, data.light ?? 0) : most);
    const low = Math.min(0.9, ...measured.map((value) => value * 0.95));
    const floor = low > 0.45 ? Math.floor(low * 10) / 10 : 0;

    const references = [
      { at: 1, text: narrow ? "eager" : "eager  1x", colour: "var(--muted)" },
      ...(data.compile === null
        ? []
        : [
            {
              at: data.compile,
              text: narrow ? "compile" : `torch.compile  ${times(data.compile)}`,
              colour: "var(--muted)",
            },
          ]),
      ...(lightFits && data.light !== null
        ? [{ at: data.light, text: narrow ? "light" : `speed of light  ${times(data.light)}`, colour: "var(--muted)" }]
        : []),
    ];
    const y = (/** @type {number} */ value) => bottom - ((value - floor) / (top - floor)) * (bottom - TOP);
    const labels = spread(
      references.map((each) => ({ ...each, at: y(each.at), speedup: each.at })),
      13,
      TOP,
      bottom,
    );

    // The last step reaches to the end of the axis, half a round beyond the last.
    const steps = [...data.best, ...data.best.slice(-1).map(({ speedup }) => ({ n: last + 0.5, speedup }))];
    const svg = chart(
      Plot,
      summary(data, passed, most),
      {
        width,
        height: HEIGHT,
        marginLeft,
        marginRight,
        marginTop: TOP,
        marginBottom: AXIS + RAIL,
        x: { domain: [-0.5, last + 0.5] },
        y: { domain: [floor, top] },
        marks: [
          Plot.gridY(ticks(floor, top, 5), { stroke: "var(--line)", strokeOpacity: 1 }),
          Plot.axisY(ticks(floor, top, 5), {
            tickSize: 0,
            label: null,
            tickFormat: (/** @type {number} */ v) => `${v}x`,
          }),
          Plot.axisX(roundTicks(last, width), { tickSize: 3, label: null, dy: RAIL, tickFormat: String }),
          Plot.ruleY(references, { y: "at", stroke: "var(--muted)", strokeWidth: 1, strokeDasharray: "4 3" }),
          Plot.line(steps, { x: "n", y: "speedup", curve: "step-after", stroke: "var(--accent)", strokeWidth: 2 }),
          Plot.ruleX(passed, { x: "n", y1: "low", y2: "high", stroke: "var(--text)", strokeWidth: 1.5 }),
          Plot.dot(passed, {
            x: "n",
            y: "speedup",
            r: narrow ? 3 : 3.5,
            fill: VERDICTS.PASSED.colour,
            stroke: "var(--panel)",
          }),
        ],
      },
      { interactive: true },
    );
    svg.append(
      ...labels.map((label) =>
        draw(
          "text",
          { x: width - marginRight + 6, y: label.place, dy: "0.32em", fill: label.colour, "text-anchor": "start" },
          label.text,
        ),
      ),
    );
    if (data.light !== null && !lightFits) {
      const text = `speed of light ${times(data.light)} ↑`;
      svg.append(draw("text", { x: width - marginRight - 4, y: 9, fill: "var(--muted)", "text-anchor": "end" }, text));
    }
    svg.append(...rail(svg, failed, bottom + 14));
    if (data.verified && data.verified.n !== null) svg.append(...winner(svg, data.verified, y(data.verified.speedup)));
    columns(svg, data.rounds, y, bottom);
    box.replaceChildren(tips(svg));
  }
}

/**
 * The shapes of the rounds that have no speedup, on a rail.
 * @param {Element} svg
 * @param {CurveRound[]} failed
 * @param {number} y
 */
function rail(svg, failed, y) {
  const size = Math.max(Math.min(11, 1.15 * (scaleX(svg, 1) - scaleX(svg, 0))), 4);
  return failed.map((round) => {
    const { shape, filled, colour } = VERDICTS[round.verdict ?? ""] ?? NO_VERDICT;
    const place = `translate(${scaleX(svg, round.n) - size / 2} ${y - size / 2}) scale(${size / 12})`;
    const paint = filled ? { fill: colour } : { fill: "none", stroke: colour, "stroke-width": 1.8 };
    return draw("path", { d: shape, transform: place, ...paint });
  });
}

/**
 * A ring around the verified winner, and the speedup that counts.
 * @param {Element} svg
 * @param {NonNullable<Curve["verified"]>} verified
 * @param {number} y
 */
function winner(svg, verified, y) {
  const x = scaleX(svg, verified.n ?? 0);
  const text = `verified ${times(verified.speedup)} ${bracket(verified.low, verified.high)}`;
  const below = y < TOP + 14;
  const end = x > 200;
  const at = { x: end ? x + 6 : x - 6, y: below ? y + 20 : y - 12, "text-anchor": end ? "end" : "start" };
  return [
    draw("circle", { cx: x, cy: y, r: 7, fill: "none", stroke: "var(--accent)", "stroke-width": 1.5 }),
    draw(
      "text",
      {
        ...at,
        fill: "var(--text)",
        "font-weight": 600,
        stroke: "var(--panel)",
        "stroke-width": 3,
        "paint-order": "stroke",
      },
      text,
    ),
  ];
}

/** @param {Element} svg @param {number} n */
const scaleX = (svg, n) => Number(/** @type {any} */ (svg).scale("x")?.apply(n));

/**
 * A column over each round: the whole height shows its tip and leads to its page.
 * @param {Element} svg
 * @param {CurveRound[]} rounds
 * @param {(value: number) => number} y
 * @param {number} bottom
 */
function columns(svg, rounds, y, bottom) {
  for (const round of rounds) {
    const [from, to] = [scaleX(svg, round.n - 0.5), scaleX(svg, round.n + 0.5)];
    const verdict = round.verdict ?? "no kernel";
    const interval = round.low === null || round.high === null ? "" : ` ${bracket(round.low, round.high)}`;
    const speed = round.speedup === null ? "" : ` ${times(round.speedup)}${interval}`;
    const at = round.speedup === null ? bottom + 14 : y(round.speedup);
    svg.append(
      draw(
        "a",
        { href: ownLink(round.href), class: "cf-column", "data-round": round.n },
        draw("title", {}, `round ${round.n}: ${verdict}${speed}${round.title ? `\n${round.title}` : ""}`),
        draw("rect", { x: from, y: TOP, width: Math.max(to - from, 1), height: bottom + RAIL - TOP }),
        draw("circle", { "data-anchor": "", cx: (from + to) / 2, cy: at, r: 6 }),
      ),
    );
  }
}

/** Whole rounds, as many as there is room for. @param {number} last @param {number} width */
function roundTicks(last, width) {
  const step = [1, 2, 5, 10, 20, 50, 100, 200].find((each) => last / each <= width / 45) ?? 500;
  return Array.from({ length: Math.floor(last / step) + 1 }, (_, i) => i * step);
}

/**
 * @param {Curve} data
 * @param {CurveRound[]} passed
 * @param {number} most
 */
function summary(data, passed, most) {
  const best = data.best.find(({ speedup }) => speedup === data.best.at(-1)?.speedup);
  const parts = [`Speedup over eager by round: ${passed.length} of ${data.rounds.length} rounds passed`];
  if (best) parts.push(`the best reaches ${times(best.speedup)} in round ${best.n}`);
  if (data.verified) parts.push(`verified ${times(data.verified.speedup)}`);
  if (data.compile !== null) parts.push(`torch.compile ${times(data.compile)}`);
  if (data.light !== null)
    parts.push(`speed of light ${times(data.light)}${data.light > 2.5 * most ? ", out of view" : ""}`);
  return `${parts.join("; ")}.`;
}

customElements.define("cf-curve", CurveElement);
