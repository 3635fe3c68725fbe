/**
 * `<cf-live src=STREAM after=ID>`: keeps the page up to date while a run goes on.
 *
 * Events only say that something changed; what changed is read from the page itself, so that the server's templates are
 * the one place that knows how things look.
 */

import { make, times } from "./core.js";
import { refresh, remember } from "./swap.js";

const TYPES = [
  "run_queued",
  "run_started",
  "stage_started",
  "stage_finished",
  "baseline_measured",
  "attempt_finished",
  "run_suspended",
  "run_resumed",
  "run_finished",
  "note",
];

const STATES = {
  connecting: "connecting",
  live: "live",
  reconnecting: "reconnecting",
  paused: "paused",
  ended: "ended",
  closed: "not live: trying again",
};

/** Events come in bursts: wait so long for the rest of one, and so long between two looks, in milliseconds. */
const QUIET = 150;
const BETWEEN = 1000;
/** What passes before a stream that the server refused is asked for again. */
const AGAIN = 15_000;

class LiveElement extends HTMLElement {
  /** @type {EventSource | null} */
  #source = null;
  #after = "";
  #ended = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  #lookedAt = 0;
  #looking = false;
  #again = false;
  /** Whether the last look failed: the page is older than the stream. */
  #missed = false;
  #news = "";
  #state = make("span", { class: "cf-live-state" });
  #spoken = make("span", { class: "cf-unseen", role: "status", "aria-live": "polite" });

  connectedCallback() {
    this.#after = this.getAttribute("after") ?? "";
    this.replaceChildren(this.#state, this.#spoken);
    document.addEventListener("visibilitychange", this.#onVisibility);
    this.#onVisibility();
  }

  disconnectedCallback() {
    document.removeEventListener("visibilitychange", this.#onVisibility);
    this.#close();
    clearTimeout(this.#timer);
  }

  // A browser opens six connections to a server, all tabs together: those that nobody looks at must not hold one.
  #onVisibility = () => {
    if (this.#ended) return;
    if (!document.hidden) return this.#open();
    this.#close();
    this.#show("paused");
  };

  #open() {
    if (this.#source) return;
    const url = new URL(this.getAttribute("src") ?? "", location.href);
    if (this.#after) url.searchParams.set("after", this.#after);
    this.#show("connecting");
    const source = new EventSource(url);
    this.#source = source;
    source.addEventListener("open", () => {
      this.#show("live");
      if (this.#missed) this.#soon();
    });
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CONNECTING) return this.#show("reconnecting");
      this.#close();
      void this.#askWhy(url);
    });
    for (const type of TYPES)
      source.addEventListener(type, (event) => this.#receive(/** @type {MessageEvent<string>} */ (event)));
  }

  /** The browser has given the stream up, and does not say why: 204, after the end of a run, or a refusal. @param {URL} url */
  async #askWhy(url) {
    const asking = new AbortController();
    const status = await fetch(url, { signal: asking.signal }).then(
      (response) => response.status,
      () => 0,
    );
    asking.abort(); // the stream itself is not wanted here
    if (!this.isConnected || this.#source) return;
    this.#ended = status === 204;
    this.#show(this.#ended ? "ended" : "closed");
    if (!this.#ended) this.#retry = setTimeout(this.#onVisibility, AGAIN);
    else if (this.#missed) this.#soon();
  }

  #close() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  /** @param {MessageEvent<string>} message */
  #receive(message) {
    this.#after = message.lastEventId;
    const { event } = JSON.parse(message.data);
    this.#news = headline(event) || this.#news;
    const ofOneRun = /\/runs\//.test(this.getAttribute("src") ?? "");
    if (event.type === "run_finished" && ofOneRun) {
      this.#ended = true;
      this.#close();
      this.#show("ended");
    }
    this.#soon();
  }

  #soon() {
    if (this.#looking) this.#again = true;
    else {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.#look(), Math.max(QUIET, this.#lookedAt + BETWEEN - Date.now()));
    }
  }

  async #look() {
    if (!this.isConnected) return;
    this.#looking = true;
    try {
      await refresh(location.href);
      this.#missed = false;
      if (this.#news) this.#spoken.textContent = this.#news;
      this.#news = "";
    } catch {
      this.#missed = true; // the server may be starting anew; the stream says when it is back
      this.#again = false;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.#look(), AGAIN);
    }
    this.#lookedAt = Date.now();
    this.#looking = false;
    if (this.#again) {
      this.#again = false;
      this.#soon();
    }
  }

  /** @param {keyof typeof STATES} state */
  #show(state) {
    this.dataset.state = state;
    this.#state.textContent = STATES[state];
  }
}

/**
 * What a screen reader says of an event; empty for those that matter little.
 * @param {{type: string, round?: number, verdict?: string | null, speedup?: {eager: {value: number}} | null,
 *   state?: string, message?: string}} event
 */
function headline(event) {
  switch (event.type) {
    case "attempt_finished": {
      const speed = event.speedup ? `, ${times(event.speedup.eager.value)} over eager` : "";
      return `Round ${event.round}: ${event.verdict ?? "no kernel"}${speed}.`;
    }
    case "run_suspended":
      return "The run waits for a reply.";
    case "run_finished":
      return `The run has ended: ${event.state}.`;
    default:
      return "";
  }
}

remember();
customElements.define("cf-live", LiveElement);
