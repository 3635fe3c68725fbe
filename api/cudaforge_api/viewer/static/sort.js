/**
 * `<cf-sort>`: around a table whose rows are all here; makes its headers sort it. A header with a link of its own
 * (`?sort=`) is left to the server, which has the rows of the other pages, too; one with `data-nosort` is left alone.
 *
 * A cell sorts by its `data-value`, else by its text; numbers before text, empty cells last.
 */

import { make } from "./core.js";

class SortElement extends HTMLElement {
  #column = -1;
  #down = false;

  connectedCallback() {
    this.addEventListener("cf-swap", this.#onSwap);
    for (const header of this.#headers()) {
      if (header.querySelector("a, button") || header.hasAttribute("data-nosort") || !header.textContent?.trim())
        continue;
      const button = make("button", { type: "button", class: "cf-sort" }, ...header.childNodes);
      button.addEventListener("click", () => this.#by(header.cellIndex));
      header.replaceChildren(button);
    }
  }

  disconnectedCallback() {
    this.removeEventListener("cf-swap", this.#onSwap);
  }

  /** @returns {HTMLTableCellElement[]} */
  #headers() {
    return [...(this.querySelector("table")?.tHead?.rows[0]?.cells ?? [])];
  }

  #onSwap = () => {
    if (this.#column >= 0) this.#sort();
  };

  /** @param {number} column */
  #by(column) {
    // Numbers are looked at from the largest, text from A; the same header again turns it round.
    this.#down =
      this.#column === column ? !this.#down : typeof this.#keys(column).find((key) => key !== "") === "number";
    this.#column = column;
    this.#sort();
  }

  /** @returns {HTMLTableRowElement[]} */
  #rows() {
    return [...(this.querySelector("table")?.tBodies[0]?.rows ?? [])];
  }

  /** @param {number} column */
  #keys(column) {
    return this.#rows().map((row) => keyOf(row.cells[column]));
  }

  #sort() {
    const rows = this.#rows();
    const keys = new Map(rows.map((row) => [row, keyOf(row.cells[this.#column])]));
    const key = (/** @type {HTMLTableRowElement} */ row) => keys.get(row) ?? "";
    rows.sort((a, b) => compare(key(a), key(b), this.#down));
    const body = rows[0]?.parentElement;
    const focused = document.activeElement;
    body?.append(...rows);
    if (focused instanceof HTMLElement && body?.contains(focused)) focused.focus({ preventScroll: true });
    for (const header of this.#headers()) {
      if (header.cellIndex === this.#column) header.setAttribute("aria-sort", this.#down ? "descending" : "ascending");
      else if (header.querySelector("button.cf-sort")) header.removeAttribute("aria-sort");
    }
  }
}

/** @param {HTMLTableCellElement | undefined} cell */
function keyOf(cell) {
  const text = (cell?.dataset.value ?? cell?.textContent ?? "").trim();
  if (text === "" || text === "–") return "";
  const number = Number(cell?.dataset.value ?? text.replace(/^[#$]|[,\s]|[x%]$/g, ""));
  return Number.isNaN(number) ? text : number;
}

/** @param {string | number} a @param {string | number} b @param {boolean} down */
function compare(a, b, down) {
  if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1;
  const order =
    typeof a === "number" && typeof b === "number"
      ? a - b
      : typeof a === typeof b
        ? String(a).localeCompare(String(b), "en")
        : typeof a === "number"
          ? -1
          : 1;
  return down ? -order : order;
}

customElements.define("cf-sort", SortElement);
