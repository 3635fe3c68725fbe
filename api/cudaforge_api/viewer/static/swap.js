/**
 * Brings the parts of a page that are marked `data-live="NAME"` up to date from a newer copy of the page.
 *
 * What counts as changed is decided between two texts of the server, never by looking at the page, which elements and
 * readers have changed meanwhile. Children whose text is the same are left as they are, so that focus, scroll and
 * drawn charts stay; a child that somebody is typing into is left, too. Parts do not lie within one another.
 */

import { Island } from "./core.js";

/** A part's children as the server last wrote them. @type {WeakMap<Element, Map<Node, string>>} */
const written = new WeakMap();

const PART = "[data-live]";

/** @param {Node} node */
const textOf = (node) => (node instanceof Element ? node.outerHTML : (node.nodeValue ?? ""));

/** Remembers what the server wrote. To be called before any other element changes the page. */
export function remember() {
  for (const part of document.querySelectorAll(PART)) rememberPart(part);
}

/** @param {Element} part */
const rememberPart = (part) => written.set(part, new Map([...part.childNodes].map((node) => [node, textOf(node)])));

/**
 * Fetches a page of this site and swaps its parts in.
 * @param {string | URL} url
 * @param {AbortSignal} [signal]
 * @returns {Promise<boolean>} whether anything changed
 */
export async function refresh(url, signal) {
  const response = await fetch(url, { headers: { Accept: "text/html" }, signal: signal ?? null });
  // Signed out meanwhile, or the run is gone: the page itself says so.
  if (response.redirected && new URL(response.url).pathname !== new URL(url, location.href).pathname) location.reload();
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  return swap(new DOMParser().parseFromString(await response.text(), "text/html"));
}

/** @param {Document} page */
export function swap(page) {
  const title = page.querySelector("title")?.textContent;
  if (title) document.title = title;
  let changed = false;
  for (const part of document.querySelectorAll(PART)) {
    const newer = page.querySelector(
      `[data-live="${CSS.escape(/** @type {HTMLElement} */ (part).dataset.live ?? "")}"]`,
    );
    if (newer && swapPart(part, newer)) {
      changed = true;
      part.dispatchEvent(new CustomEvent("cf-swap", { bubbles: true }));
    }
  }
  return changed;
}

/**
 * @param {Element} part
 * @param {Element} newer
 */
function swapPart(part, newer) {
  const before = written.get(part) ?? new Map();
  /** The children that are here, by their text. @type {Map<string, Node[]>} */
  const here = new Map();
  for (const [node, text] of before) {
    if (node.parentNode === part) here.set(text, [...(here.get(text) ?? []), node]);
  }
  const fresh = [...newer.childNodes].map((node) => ({ node, text: textOf(node) }));
  const old = [...before.values()];
  if (old.length === fresh.length && fresh.every(({ text }, i) => text === old[i])) return false;
  // A form that somebody fills in is not taken away; the next change tries again.
  if ([...before.keys()].some((node) => isBeingFilledIn(node) && !fresh.some(({ text }) => text === before.get(node))))
    return false;

  const restore = state(part);
  const kept = fresh.map(({ text }) => here.get(text)?.shift());
  const left = [...here.values()].flat();
  const after = new Map();
  /** @type {Node | null} */
  let cursor = part.firstChild;
  for (const [i, { node, text }] of fresh.entries()) {
    const child = kept[i] ?? renewed(left, node) ?? document.importNode(node, true);
    after.set(child, text);
    if (child === cursor) cursor = cursor.nextSibling;
    else part.insertBefore(child, cursor);
  }
  while (cursor) {
    const next = /** @type {Node | null} */ (cursor.nextSibling);
    part.removeChild(cursor);
    cursor = next;
  }
  // importNode upgrades custom elements only once they are in the page: their text was taken before, from `newer`.
  written.set(part, after);
  restore();
  return true;
}

/**
 * A drawn element among those that would go, which takes the place of a newer copy of itself.
 * @param {Node[]} left
 * @param {Node} node
 */
function renewed(left, node) {
  const at = left.findIndex((each) => each instanceof Island && each.nodeName === node.nodeName);
  const island = left[at];
  return island instanceof Island && node instanceof Element && island.renew(node) ? left.splice(at, 1)[0] : undefined;
}

/** @param {Node} node */
function isBeingFilledIn(node) {
  if (!(node instanceof Element)) return false;
  const fields = /** @type {NodeListOf<HTMLInputElement | HTMLTextAreaElement>} */ (
    node.querySelectorAll("textarea, input:not([type=hidden], [type=checkbox], [type=radio])")
  );
  return [...fields].some((field) => field.value !== field.defaultValue);
}

/**
 * Notes what a reader has done in a part: focus, ticks, opened details, scroll. Returns what puts it back.
 * @param {Element} part
 */
function state(part) {
  const focus =
    part.contains(document.activeElement) && document.activeElement !== part
      ? path(part, document.activeElement)
      : null;
  const focusKey = focus && keyOf(/** @type {Element} */ (document.activeElement));
  const ticked = [...part.querySelectorAll("input")]
    .filter((each) => each.checked !== each.defaultChecked)
    .map((each) => ({
      selector: `input[name="${CSS.escape(each.name)}"][value="${CSS.escape(each.value)}"]`,
      checked: each.checked,
    }));
  const open = [...part.querySelectorAll("details")].map((each) => ({ at: path(part, each), open: each.open }));
  const scrolled = [...part.querySelectorAll("*")]
    .filter((each) => each.scrollTop || each.scrollLeft)
    .map((each) => ({ at: path(part, each), top: each.scrollTop, left: each.scrollLeft }));
  return () => {
    for (const each of ticked) {
      const input = part.querySelector(each.selector);
      if (input instanceof HTMLInputElement) input.checked = each.checked;
    }
    for (const each of open) {
      const element = follow(part, each.at);
      if (element instanceof HTMLDetailsElement) element.open = each.open;
    }
    for (const each of scrolled) follow(part, each.at)?.scrollTo(each.left, each.top);
    if (focus && !part.contains(document.activeElement)) {
      const element = (focusKey && part.querySelector(focusKey)) || follow(part, focus);
      if (element instanceof HTMLElement || element instanceof SVGElement) element.focus({ preventScroll: true });
    }
  };
}

/** A selector that finds the same thing in a newer copy, wherever it has moved to. @param {Element} element */
function keyOf(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const href = element.getAttribute("href");
  return href ? `${element.localName}[href="${CSS.escape(href)}"]` : null;
}

/** @param {Element} root @param {Element | null} element */
function path(root, element) {
  const steps = [];
  for (let each = element; each && each !== root; each = each.parentElement) {
    steps.unshift([...(each.parentElement?.children ?? [])].indexOf(each));
  }
  return steps;
}

/** @param {Element} root @param {number[]} steps @returns {Element | null} */
const follow = (root, steps) =>
  steps.reduce((/** @type {Element | null} */ each, step) => each?.children[step] ?? null, root);
