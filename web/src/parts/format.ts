// Numbers as people read them. A figure that is not known is a dash.
export const UNKNOWN = "–";

type Number = number | null | undefined;

export function count(value: Number): string {
  return value == null ? UNKNOWN : value.toLocaleString("en");
}

export function share(value: Number, digits = 0): string {
  return value == null ? UNKNOWN : `${(100 * value).toFixed(digits)} %`;
}

export function score(value: Number): string {
  return value == null ? UNKNOWN : value.toFixed(3);
}

export function change(value: Number): string {
  return value == null ? UNKNOWN : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
}

export function dollars(value: Number): string {
  if (value == null) return UNKNOWN;
  const sign = value < 0 ? "−" : "";
  const amount = Math.abs(value);
  return `${sign}$${value !== 0 && amount < 0.01 ? amount.toPrecision(2) : amount.toFixed(2)}`;
}

export function seconds(value: Number): string {
  if (value == null) return UNKNOWN;
  if (value < 1) return `${(1000 * value).toFixed(value < 0.01 ? 1 : 0)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 7200) return `${(value / 60).toFixed(0)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

export function bytes(value: Number): string {
  if (value == null) return UNKNOWN;
  let left = value;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (left < 1000) return `${left.toFixed(left < 10 && unit !== "B" ? 1 : 0)} ${unit}`;
    left /= 1000;
  }
  return `${left.toFixed(1)} TB`;
}

/** A moment, given in seconds since the epoch. */
export function moment(at_s: Number): string {
  if (at_s == null) return UNKNOWN;
  const then = new Date(1000 * at_s);
  const today = then.toDateString() === new Date().toDateString();
  return today ? then.toLocaleTimeString() : then.toLocaleString();
}
