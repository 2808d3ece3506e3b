// Plots as inline SVG. Their texts are HTML beside them, so that they keep their size on every screen.

import { el, styled, svg } from "./dom.js";
import { number, percent, position } from "./format.js";

const SCORES = [1, 2, 3, 4, 5];
const TENTH = 0.1;
const SPAN = 4 + TENTH; // from 1.0 to the end of the tenth that begins at 5.0
const GAP = 0.02;

/** The distribution of a score over tenths, its mean and one standard deviation to both sides. */
export function distribution({ distribution: bars, score, std }) {
  const highest = Math.max(...bars.map(({ probability }) => probability), 0);
  const drawn = bars.map(({ score: from, probability }) => {
    const height = probability / highest;
    const place = { x: from - 1 + GAP / 2, y: 1 - height, width: TENTH - GAP, height };
    return svg("rect", place, svg("title", {}, `${number(from, 1)}: ${percent(probability)}`));
  });
  const plot = svg(
    "svg",
    { viewBox: `0 0 ${SPAN} 1`, preserveAspectRatio: "none", role: "img", "aria-label": inWords(bars, score) },
    std && svg("rect", { class: "band", ...within(score - std, score + std), y: 0, height: 1 }),
    svg("g", { class: "bars" }, ...drawn),
    svg("line", { class: "mean", x1: score - 1, x2: score - 1, y1: 0, y2: 1 }),
  );
  const ticks = SCORES.map((at) => styled(el("span", {}, `${at}`), { "--at": (at - 1) / SPAN }));
  return el("div", { class: "distribution" }, plot, el("div", { class: "ticks", "aria-hidden": "true" }, ...ticks));
}

/** One set's results: a bar a version, from the oldest to the newest. `bars`: [{ value, label, active }]. */
export function benchmark(name, count, bars) {
  const width = 1 / bars.length;
  const drawn = bars.map(({ value, label, active }, index) => {
    const height = Math.max(0, value ?? 0);
    const place = { x: (index + 0.14) * width, width: 0.72 * width, y: 1 - height, height };
    return svg("rect", { ...place, class: active && "active" }, svg("title", {}, `${label}: ${number(value, 3)}`));
  });
  const values = bars.map(({ value, label, active }) =>
    el("li", { class: active && "active" }, el("span", { class: "quiet" }, `${label}: `), number(value)),
  );
  return el(
    "figure",
    { class: "benchmark" },
    el("figcaption", {}, name, el("small", {}, `${count} pictures`)),
    svg("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" }, ...drawn),
    el("ol", {}, ...values),
  );
}

/** How likely the first is preferred, and which probabilities count as a tie. */
export function preference(probability, margin) {
  const bar = el(
    "div",
    { class: "preference", role: "img", "aria-label": `A ${percent(probability)}, B ${percent(1 - probability)}` },
    el("span", { class: "first" }),
    el("span", { class: "tie" }),
  );
  return styled(bar, { "--p": probability, "--margin": margin });
}

/** An element in the colour of its score. */
export const toned = (element, score) => styled(element, { "--q": position(score) });

function within(from, to) {
  const [left, right] = [Math.max(1, from), Math.min(1 + SPAN, to)];
  return { x: left - 1, width: Math.max(0, right - left) };
}

function inWords(bars, score) {
  const likeliest = bars.reduce((best, bar) => (bar.probability > best.probability ? bar : best));
  const most = `most likely ${number(likeliest.score, 1)} with ${percent(likeliest.probability)}`;
  return `Distribution of the score: mean ${number(score)}, ${most}`;
}
