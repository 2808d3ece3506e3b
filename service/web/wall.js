// The view "Wall": pictures that take their places as answers stream in.

import { rank } from "./api.js";
import { toned } from "./charts.js";
import { announce, byId, el } from "./dom.js";
import { number, percent, plural } from "./format.js";
import { chosen } from "./options.js";
import { pictures } from "./pictures.js";
import { preview } from "./score.js";

const MOVE = { duration: 520, easing: "cubic-bezier(0.2, 0.8, 0.2, 1)" };
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const tiles = new Map();
const list = el("ol", { class: "wall", id: "tiles" });
const said = el("p", { class: "said", role: "status" });
let by = "score";
let ranks = new Map();
let run = new AbortController();
let frame = null;

/** Builds the view. */
export function start() {
  const choice = (value, text, checked) =>
    el("label", {}, el("input", { type: "radio", name: "by", value, checked, onchange: orderBy }), el("span", {}, text));
  const bar = el(
    "div",
    { class: "bar" },
    el(
      "fieldset",
      { class: "switch" },
      el("legend", {}, "Order by"),
      choice("score", "Score", true),
      choice("comparisons", "Comparisons", false),
    ),
    said,
  );
  byId("view-wall").append(bar, list);
  pictures.addEventListener("list", changed);
  pictures.addEventListener("state", soon);
}

/** Ranks again if the order is by comparisons: the options changed, or the view came up. */
export function refresh() {
  if (by === "comparisons" && !byId("view-wall").hidden) compareAll();
}

function orderBy({ target }) {
  by = target.value;
  run.abort();
  said.textContent = "";
  refresh();
  soon();
}

function changed() {
  ranks = new Map();
  run.abort();
  refresh();
  soon();
}

async function compareAll() {
  run.abort();
  run = new AbortController();
  const { signal } = run;
  const [shown, say] = [pictures.list, (text) => !signal.aborted && (said.textContent = text)];
  if (shown.length < 2) return say("Two pictures or more can be ranked.");
  say(`Comparing ${shown.length} pictures …`);
  try {
    const files = shown.map(({ file }) => file);
    const answer = await rank(files, chosen({ even: true, reasoning: false }), { signal, waiting: say });
    ranks = new Map(answer.ranking.map((place) => [shown[place.index].id, place]));
    const bias = answer.position_bias === null ? "" : `, position bias ${percent(Math.abs(answer.position_bias))}`;
    say(`${plural(answer.comparisons, "comparison")} of ${answer.pairs} possible${bias}.`);
    announce("Ranked.");
    soon();
  } catch (error) {
    say(error.message);
  }
}

/** Draws at most once a frame, however many answers come. */
function soon() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    draw();
  });
}

function draw() {
  for (const [id, tile] of tiles) if (!pictures.find(id)) tiles.delete(id) && tile.remove();
  const ordered = [...pictures.list].sort((a, b) => placeOf(a) - placeOf(b) || a.id - b.id);
  const before = new Map([...tiles].map(([id, tile]) => [id, tile.getBoundingClientRect()]));
  const focused = document.activeElement;
  ordered.forEach((picture, index) => {
    if (!tiles.has(picture.id)) tiles.set(picture.id, el("li", { class: "tile" }, preview(picture), el("div", { class: "place" })));
    const tile = tiles.get(picture.id);
    label(tile, picture, index);
    if (list.children[index] !== tile) list.insertBefore(tile, list.children[index] ?? null);
  });
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
  if (!calm.matches && !byId("view-wall").hidden) before.forEach((from, id) => tiles.has(id) && glide(tiles.get(id), from));
}

/** Sorts ascending: the best first, those without an answer last. */
function placeOf(picture) {
  if (by === "comparisons") return ranks.get(picture.id)?.rank ?? Infinity;
  return picture.answer?.score == null ? Infinity : -picture.answer.score;
}

function label(tile, picture, index) {
  const { state, answer, sentence, name } = picture;
  tile.dataset.state = by === "comparisons" && ranks.has(picture.id) ? "scored" : state;
  tile.title = sentence ?? name;
  if (answer?.score != null) toned(tile, answer.score);
  const placed = placeOf(picture) !== Infinity;
  tile.querySelector(".place").replaceChildren(
    el("b", {}, placed ? `${index + 1}` : "·"),
    el("span", { class: "name" }, state === "failed" ? sentence : name),
    el("span", { class: "mark" }, placed ? markOf(picture) : ""),
  );
}

function markOf({ id, answer }) {
  if (by === "score") return number(answer.score);
  const { strength, standard_error: error } = ranks.get(id);
  return error === null ? number(strength) : `${number(strength)} ± ${number(error)}`;
}

/** From where a tile was, mid-flight or not, to where it is now. */
function glide(tile, from) {
  tile.getAnimations().forEach((animation) => animation.cancel());
  const to = tile.getBoundingClientRect();
  const [x, y] = [from.left - to.left, from.top - to.top];
  if (x || y) tile.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], MOVE);
}
