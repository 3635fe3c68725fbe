/**
 * All elements of the viewer: what a page loads. `live.js` is first, for it remembers the page as the server wrote it.
 *
 * The libraries are loaded when an element that needs them comes into view. An exported page has, as inline modules in
 * this order, vendor/plot.js and vendor/codemirror.js (each only where the page has such elements), vendor/elements.js.
 */

import "./live.js";
import "./filter.js";
import "./sort.js";
import "./copy.js";
import "./bars.js";
import "./curve.js";
import "./diff.js";
import "./errors.js";
import "./roofline.js";
import "./strip.js";
import "./timeline.js";
