/** What the elements use of Observable Plot. */
export { axisX, axisY, dot, gridX, gridY, line, link, plot, rect, rectX, ruleX, ruleY, text } from "@observablehq/plot";
