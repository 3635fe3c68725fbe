/** `<cf-filter>`: around a GET form; shows what it finds while one types. Without scripts the form has its button. */

import { refresh } from "./swap.js";

const QUIET = 200; // milliseconds

class FilterElement extends HTMLElement {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #running = new AbortController();
  /** The query that the page shows. */
  #shown = location.search;

  connectedCallback() {
    this.addEventListener("input", this.#onInput);
    this.addEventListener("submit", this.#onSubmit);
    window.addEventListener("popstate", this.#onBack);
  }

  disconnectedCallback() {
    clearTimeout(this.#timer);
    this.removeEventListener("input", this.#onInput);
    this.removeEventListener("submit", this.#onSubmit);
    window.removeEventListener("popstate", this.#onBack);
  }

  #onInput = () => {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#apply(), QUIET);
  };

  #onSubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    clearTimeout(this.#timer);
    void this.#apply();
  };

  #onBack = () => {
    if (location.search !== this.#shown) location.reload(); // not for a link within the page
  };

  async #apply() {
    const form = this.querySelector("form");
    if (!form) return;
    const url = new URL(form.action, location.href);
    url.search = "";
    for (const [name, value] of new FormData(form)) {
      if (typeof value === "string" && value !== "") url.searchParams.append(name, value);
    }
    this.#running.abort(); // an older answer must not overtake this one
    this.#running = new AbortController();
    this.setAttribute("aria-busy", "true");
    try {
      await refresh(url, this.#running.signal);
      history.replaceState(null, "", url);
      this.#shown = location.search;
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") return;
      location.assign(url); // the page itself says what is wrong
    }
    this.removeAttribute("aria-busy");
  }
}

customElements.define("cf-filter", FilterElement);
