/** `<cf-roofline>`: where this kernel and its parent stand under what the device reached itself. */

import { ChartIsland, chart, note, spread } from "./chart.js";
import { draw, make, percent, si, significant } from "./core.js";

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

    // Whole decades that show every point and every ridge.
    const xs = [...points.map((point) => point.intensity), ...ridges];
    const x1 = 10 ** Math.floor(Math.log10(Math.min(...xs) / 2));
    const x2 = 10 ** Math.ceil(Math.log10(Math.max(...xs) * 2));
    const peak = highest ?? x2 * bandwidth;
    const y1 =
      10 ** Math.floor(Math.log10(Math.min(...points.map((point) => point.ops_per_s), x1 * bandwidth * 2) / 1.5));
    const y2 = 10 ** Math.ceil(Math.log10(Math.max(peak, ...points.map((point) => point.ops_per_s)) * 1.3));

    const marginLeft = 48;
    const marginRight = narrow ? 12 : 16;
    const marginTop = 12;
    const marginBottom = 38;
    const roofEnd = Math.min(peak / bandwidth, x2);
    const memoryStart = Math.max(x1, y1 / bandwidth);
    const decades = (/** @type {number} */ from, /** @type {number} */ to) =>
      Array.from({ length: Math.round(Math.log10(to / from)) + 1 }, (_, i) => from * 10 ** i);

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
          label: `${data.unit} per byte`,
          labelArrow: "none",
          labelAnchor: "right",
          labelOffset: 34,
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
        // From the point up to its roof: what is left.
        Plot.link(
          points.filter((point) => point.kind === "this"),
          {
            x1: "intensity",
            x2: "intensity",
            y1: "ops_per_s",
            y2: (point) => roofAt(data, point.intensity),
            stroke: "var(--accent)",
            strokeDasharray: "2 3",
          },
        ),
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
    const halo = { stroke: "var(--panel)", "stroke-width": 3, "paint-order": "stroke" };

    // Roof labels over the right end of their lines.
    for (const roof of spread(
      roofs.map((each) => ({ ...each, at: py(each.ops_per_s) - 5 })),
      13,
      marginTop,
      HEIGHT,
    )) {
      const text = `${roof.label}  ${si(roof.ops_per_s)}${data.unit}/s`;
      svg.append(
        draw(
          "text",
          { x: width - marginRight - 2, y: roof.place, "text-anchor": "end", fill: "var(--muted)", ...halo },
          text,
        ),
      );
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
      const share = point.ops_per_s / roofAt(data, point.intensity);
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
          `${point.title}  ${percent(share)} of its roof`,
        ),
      );
    }
    box.replaceChildren(
      svg,
      make("p", { class: "cf-legend" }, `${data.unit}/s over ${data.unit} per byte, both logarithmic`),
    );
  }
}

/** The rate that the device allows at an intensity. @param {Roofline} data @param {number} intensity */
function roofAt(data, intensity) {
  const flat = data.compute.map((roof) => roof.ops_per_s).filter((rate) => rate > 0);
  return Math.min(data.memory.bytes_per_s * intensity, ...(flat.length ? [Math.max(...flat)] : []));
}

/** @param {Roofline} data @param {Roofline["points"]} points */
function summary(data, points) {
  const each = points.map(
    (point) =>
      `${point.title} reaches ${si(point.ops_per_s)}${data.unit}/s ` +
      `at ${significant(point.intensity)} ${data.unit} per byte, ` +
      `${percent(point.ops_per_s / roofAt(data, point.intensity))} of its roof`,
  );
  return `Roofline: ${each.join("; ")}.`;
}

customElements.define("cf-roofline", RooflineElement);
