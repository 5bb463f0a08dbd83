// How figures and times of tables are shown to people, and exported to programs: in one unit, unrounded.
import { bytes, count, dollars, moment, score, seconds, share, UNKNOWN } from "./format";

type Known = number | null | undefined;

export type Figure = {
  /** Of what is exported; empty if it has none. */
  unit: string;
  show: (value: Known) => string;
  /** What is exported; the figure itself, if it is not stated. */
  value?: (value: Known) => string | null;
};

export const inSeconds: Figure = { unit: "s", show: seconds };
export const ago: Figure = { unit: "s ago", show: (value) => (value == null ? UNKNOWN : `${seconds(value)} ago`) };
export const inDollars: Figure = { unit: "USD", show: dollars };
export const inBytes: Figure = { unit: "bytes", show: bytes };
export const counting: Figure = { unit: "", show: count };
export const scoring: Figure = { unit: "", show: score };
/** Shares in [0, 1], shown in percent. */
export const sharing: Figure = { unit: "", show: share };
export const sharingFinely: Figure = { unit: "", show: (value) => share(value, 1) };
/** Privacy budget: the sum of the visits' own epsilons. */
export const inEpsilon: Figure = { unit: "ε", show: (value) => (value ? `ε ${value.toPrecision(3)}` : UNKNOWN) };
/** Moments, of seconds since the epoch. */
export const at: Figure = { unit: "UTC", show: moment, value: (at_s) => (at_s == null ? null : new Date(1000 * at_s).toISOString()) };
