/** `<cf-roofline>`: where this kernel and its parent stand under what the device reached itself. */

import { ChartIsland, chart, note, spread } from "./chart.js";
import { draw, make, si, significant } from "./core.js";

/** @import { Roofline } from "./types.d.ts" */

const HEIGHT = 280;

/** @extends {ChartIsland<Roofline>} */
export class RooflineElement extends ChartIsland {
  /**
   * @override
   * @param {Roofline} data
   * @param {HTMLElement} box
   * @param {number} width
   */
  render(data, box, width) {
    const Plot = this.Plot;
    const points = data.points.filter(({ intensity, ops_per_s }) => intensity > 0 && ops_per_s > 0);
    if (!points.length || data.memory.bytes_per_s <= 0) {
      return box.replaceChildren(note("Its place cannot be drawn: no rate was measured."));
    }
    const narrow = width < 480;
    const bandwidth = data.memory.bytes_per_s;
    const roofs = data.compute.filter((roof) => roof.ops_per_s > 0).sort((a, b) => a.ops_per_s - b.ops_per_s);
    const highest = roofs.at(-1)?.ops_per_s ?? null;
    const ridges = roofs.map((roof) => roof.ops_per_s / bandwidth);

    // Room around every point and every ridge.
    const xs = [...points.map((point) => point.intensity), ...ridges];
    const [x1, x2] = [Math.min(...xs) / 5, Math.max(...xs) * 4];
    const peak = highest ?? x2 * bandwidth;
    const ys = points.map((point) => point.ops_per_s);
    const [y1, y2] = [Math.min(...ys, x1 * bandwidth * 2) / 2, Math.max(peak, ...ys) * 2];

    const marginLeft = 48;
    const marginRight = roofs.length ? (narrow ? 92 : 106) : 16;
    const marginTop = 12;
    const marginBottom = 24;
    const roofEnd = Math.min(peak / bandwidth, x2);
    const memoryStart = Math.max(x1, y1 / bandwidth);
    const decades = (/** @type {number} */ from, /** @type {number} */ to) => {
      const first = Math.ceil(Math.log10(from));
      const count = Math.floor(Math.log10(to)) - first + 1;
      return Array.from({ length: Math.max(count, 0) }, (_, i) => Number(`1e${first + i}`));
    };

    const svg = chart(Plot, summary(data, points), {
      width,
      height: HEIGHT,
      marginLeft,
      marginRight,
      marginTop,
      marginBottom,
      x: { type: "log", domain: [x1, x2] },
      y: { type: "log", domain: [y1, y2] },
      marks: [
        Plot.gridX(decades(x1, x2), { stroke: "var(--line)", strokeOpacity: 1 }),
        Plot.gridY(decades(y1, y2), { stroke: "var(--line)", strokeOpacity: 1 }),
        Plot.axisX(decades(x1, x2), {
          tickSize: 0,
          tickFormat: (/** @type {number} */ value) => significant(value),
          label: null,
        }),
        Plot.axisY(decades(y1, y2), {
          tickSize: 0,
          tickFormat: (/** @type {number} */ value) => si(value).replace(" ", ""),
          label: null,
        }),
        Plot.line(
          [
            { x: memoryStart, y: memoryStart * bandwidth },
            { x: roofEnd, y: roofEnd * bandwidth },
          ],
          { x: "x", y: "y", stroke: "var(--text)", strokeWidth: 1.5 },
        ),
        Plot.link(roofs, {
          x1: (roof) => Math.min(roof.ops_per_s / bandwidth, x2),
          x2,
          y1: "ops_per_s",
          y2: "ops_per_s",
          stroke: "var(--text)",
          strokeWidth: (roof) => (roof.ops_per_s === highest ? 1.5 : 1),
          strokeDasharray: undefined,
        }),
        Plot.dot(points, {
          x: "intensity",
          y: "ops_per_s",
          r: (point) => (point.kind === "this" ? 5 : 4),
          fill: (point) => (point.kind === "this" ? "var(--accent)" : "var(--panel)"),
          stroke: (point) => (point.kind === "this" ? "var(--panel)" : "var(--text)"),
          strokeWidth: 1.5,
        }),
      ],
      r: { type: "identity" },
    });
    const scale = /** @type {any} */ (svg);
    const px = (/** @type {number} */ value) => Number(scale.scale("x").apply(value));
    const py = (/** @type {number} */ value) => Number(scale.scale("y").apply(value));
    const halo = { stroke: "var(--panel)", "stroke-width": 6, "paint-order": "stroke" };

    // The roofs' labels beside the right end of their lines.
    const ends = roofs.map((roof) => ({ ...roof, at: py(roof.ops_per_s) }));
    for (const roof of spread(ends, 13, marginTop, HEIGHT - marginBottom)) {
      const text = `${roof.label}  ${si(roof.ops_per_s)}`;
      const at = { x: width - marginRight + 6, y: roof.place, dy: "0.32em", "text-anchor": "start" };
      svg.append(draw("text", { ...at, fill: "var(--muted)" }, text));
    }
    // The slope's label along the slope.
    const [ax, ay, bx, by] = [px(memoryStart), py(memoryStart * bandwidth), px(roofEnd), py(roofEnd * bandwidth)];
    const angle = (Math.atan2(by - ay, bx - ax) * 180) / Math.PI;
    const [mx, my] = [ax + (bx - ax) * 0.3, ay + (by - ay) * 0.3];
    const memory = `${data.memory.label}  ${si(bandwidth)}B/s`;
    svg.append(
      draw(
        "text",
        { x: mx, y: my, dy: -6, transform: `rotate(${angle} ${mx} ${my})`, fill: "var(--muted)", ...halo },
        memory,
      ),
    );
    const named = points.map((point) => ({ ...point, at: py(point.ops_per_s) }));
    for (const point of spread(named, 14, marginTop, HEIGHT - marginBottom - 6)) {
      const x = px(point.intensity);
      const left = x > width * 0.6;
      svg.append(
        draw(
          "text",
          {
            x: x + (left ? -10 : 10),
            y: point.place,
            dy: "0.32em",
            "text-anchor": left ? "end" : "start",
            fill: "var(--text)",
            "font-weight": point.kind === "this" ? 600 : 400,
            ...halo,
          },
          `${point.title}  ${si(point.ops_per_s)}${data.unit}/s`,
        ),
      );
    }
    box.replaceChildren(
      svg,
      make(
        "p",
        { class: "cf-legend" },
        `up: ${data.unit}/s, across: ${data.unit} per byte, both logarithmic; the lines: what this device reached itself`,
      ),
    );
  }
}

/** @param {Roofline} data @param {Roofline["points"]} points */
function summary(data, points) {
  const each = points.map(
    (point) =>
      `${point.title} reaches ${si(point.ops_per_s)}${data.unit}/s ` +
      `at ${significant(point.intensity)} ${data.unit} per byte`,
  );
  return `Roofline: ${each.join("; ")}.`;
}

customElements.define("cf-roofline", RooflineElement);
