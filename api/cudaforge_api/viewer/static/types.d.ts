/**
 * What the server hands to the elements: one JSON object for each island, in a `<script type="application/json">`
 * that is the first thing in the element. The models in cudaforge_api/viewer/ write exactly these.
 *
 * `null` is "not known". Shares are 0..1, percents 0..100, speedups are old time / new time, times are in the unit
 * that their name ends in. Every string is untrusted text and is shown as such.
 */

/** As cudaforge.evaluation.Verdict; `null` is a round without a kernel, or one under way. */
export type Verdict =
  "PASSED" | "BUILD_FAILED" | "RUNTIME_ERROR" | "TIMEOUT" | "INCORRECT" | "REJECTED" | "INFRASTRUCTURE";

/** A number with its 95 % interval. */
export interface Interval {
  value: number;
  low: number;
  high: number;
}

/** `<cf-curve>`: speedup over eager by round. */
export interface Curve {
  /** Every round, in order; `speedup` only where it passed. */
  rounds: CurveRound[];
  /** The best so far after each round that has one. */
  best: { n: number; speedup: number }[];
  /** Always 1: what everything is measured against. */
  eager: number;
  /** Speedup of torch.compile over eager. */
  compile: number | null;
  /** Speedup of the speed of light (eager time / floor). */
  light: number | null;
  /** The verified winner; `n` is its round. */
  verified: { n: number | null; speedup: number; low: number; high: number } | null;
}

export interface CurveRound {
  n: number;
  verdict: Verdict | null;
  speedup: number | null;
  low: number | null;
  high: number | null;
  /** The round's page. */
  href: string;
  /** One line: what was tried, or why it failed. */
  title: string;
}

/** `<cf-timeline>`: where the time of a run went. Times are seconds since the run began. */
export interface Timeline {
  total_s: number;
  /** In the order in which they are drawn. */
  lanes: Lane[];
  /** When nobody worked: suspended, queued, stopped. */
  gaps: Gap[];
}

export type LaneKind =
  "coder" | "judge" | "baseline" | "build" | "check" | "time" | "profile" | "waiting" | "verify" | "other";

export interface Lane {
  /** As a reader sees it: `waiting for the device`. */
  name: string;
  kind: LaneKind;
  spans: Span[];
}

export interface Span {
  start_s: number;
  end_s: number;
  /** `null` for the baseline and the verification. */
  round: number | null;
  title: string;
}

export interface Gap {
  start_s: number;
  end_s: number;
  title: string;
}

/** `<cf-diff>`: one file against another. An empty `left.text` is a new file, an empty `right.text` a deleted one. */
export interface Diff {
  left: DiffSide;
  right: DiffSide;
  language: "cuda" | "cpp" | "python";
  marks: Mark[];
}

export interface DiffSide {
  title: string;
  text: string;
}

/** Something said of a line. A hot line has its share of the stall samples, the rest has `null`. */
export interface Mark {
  side: "left" | "right";
  /** From 1. */
  line: number;
  kind: "error" | "warning" | "remark" | "hot";
  text: string;
  share: number | null;
}

/** `<cf-errors>`: where outputs differ. Only the first mismatching places of an output are recorded, never all. */
export interface Errors {
  outputs: OutputErrors[];
}

export interface OutputErrors {
  /** Its place in what forward returns: `0`, `1.hidden`. */
  name: string;
  /** Of the output; `null` where it is not recorded. */
  shape: number[] | null;
  mismatched: number;
  total: number;
  /** In plain words: `all rows from 4080 on`. */
  pattern: string;
  /** The first mismatching places; `null` values are NaN. */
  places: { index: number[]; expected: number | null; got: number | null }[];
}

/** `<cf-stalls>`: what the warps did. Shares of a side add up to about 1. */
export interface Stalls {
  /** Largest first. `parent` is the share in the parent's kernel. */
  reasons: { name: string; share: number; parent: number | null }[];
  note: string;
}

/** `<cf-roofline>`: achieved rate over arithmetic intensity, against what this device reached. */
export interface Roofline {
  memory: { label: string; bytes_per_s: number };
  /** One roof for each dtype that matters. */
  compute: { label: string; ops_per_s: number }[];
  points: { title: string; intensity: number; ops_per_s: number; kind: "this" | "parent" }[];
  /** Of an operation: `FLOP`. */
  unit: string;
}

/** `<cf-light>`: percent of the device's peak by unit. */
export interface Light {
  bars: { name: string; percent: number; parent: number | null }[];
}

/** `<cf-strip>`: every raw sample. */
export interface Strip {
  unit: "us";
  series: StripSeries[];
  /** A/A control: the baseline against itself, as ratios about 1. */
  noise: { low: number; high: number } | null;
}

export interface StripSeries {
  name: string;
  kind: "kernel" | "eager" | "compile";
  samples: number[];
  median: number;
  low: number;
  high: number;
}
