// Numbers as people read them.

const NONE = "–";

export const number = (value, digits = 2) => (value === null ? NONE : value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−"));

export const signed = (value, digits = 2) => (value > 0 ? "+" : "") + number(value, digits);

/** A share: whole percents, or one decimal below one percent. */
export function percent(share) {
  if (share === null) return NONE;
  const hundredths = 100 * share;
  if (hundredths > 0 && hundredths < 0.1) return "< 0.1 %";
  return `${hundredths < 1 && hundredths > 0 ? hundredths.toFixed(1) : Math.round(hundredths)} %`;
}

export const milliseconds = (value) => (value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);

/** The share of unreadable answers, and of those that the limit of tokens ended. */
export const unread = ({ unreadable, cut_off }) => percent(unreadable) + (cut_off ? `, ${percent(cut_off)} cut off` : "");

/** The mode of an answer, and how often it was asked. */
export function asked({ mode, samples, thoughts }, one) {
  if (mode === "sampled") return plural(samples, one);
  return thoughts ? `expected, ${plural(thoughts, "thought")}` : "expected";
}

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** A picture's size, and what the model saw of it. */
export function sizes({ width, height, seen_width, seen_height }) {
  const whole = `${width}\u00a0×\u00a0${height}`;
  const same = seen_width === null || width === seen_width && height === seen_height;
  return same ? whole : `${whole}, seen as\u00a0${seen_width}\u00a0×\u00a0${seen_height}`;
}

/** Where a score from 1 to 5 lies between them, from 0 to 1. */
export const position = (score) => Math.min(1, Math.max(0, (score - 1) / 4));
