// The view "Score": a card for each picture, with everything the answer tells.

import { distribution, toned } from "./charts.js";
import { byId, el } from "./dom.js";
import { asked, number, sizes, unread } from "./format.js";
import { pictures } from "./pictures.js";
import { retry } from "./scorer.js";

const cards = new Map();

/** Builds the view. */
export function start() {
  pictures.addEventListener("list", renderList);
  pictures.addEventListener("state", ({ detail }) => renderCard(detail));
}

function renderList() {
  for (const [id, card] of cards) {
    if (pictures.find(id)) continue;
    card.remove();
    cards.delete(id);
  }
  const added = pictures.list.filter(({ id }) => !cards.has(id));
  added.forEach((picture) => cards.set(picture.id, makeCard(picture)));
  byId("cards").prepend(...added.map(({ id }) => cards.get(id)));
  added.forEach(renderCard);
}

function makeCard(picture) {
  const remove = el(
    "button",
    { class: "remove", type: "button", "aria-label": `Remove ${picture.name}`, onclick: () => leave(picture) },
    "×",
  );
  return el(
    "li",
    { class: "card" },
    preview(picture),
    el("div", { class: "about" }, el("h2", { title: picture.name }, picture.name), el("div", { class: "answer" })),
    remove,
  );
}

/** A picture as it is, or word that the browser cannot show its format. */
export function preview({ url }) {
  const frame = el("div", { class: "frame" });
  const unseen = () => frame.replaceChildren(el("span", {}, "No preview"));
  frame.append(el("img", { src: url, alt: "", decoding: "async", draggable: "false", onerror: unseen }));
  return frame;
}

function leave(picture) {
  const card = cards.get(picture.id);
  const neighbour = card.nextElementSibling ?? card.previousElementSibling;
  pictures.remove(picture);
  (neighbour?.querySelector(".remove") ?? byId("files")).focus();
}

function renderCard(picture) {
  const card = cards.get(picture.id);
  if (!card) return;
  card.dataset.state = picture.state;
  card.querySelector(".answer").replaceChildren(...contents(picture));
}

function contents(picture) {
  if (picture.state === "scored") return scored(picture.answer);
  if (picture.state === "failed") {
    const again = el("button", { class: "plain", type: "button", onclick: () => retry(picture) }, "Try again");
    return [el("p", { class: "problem" }, picture.sentence), again];
  }
  return [el("p", { class: "pending" }, picture.sentence ?? "Looking …")];
}

function scored(answer) {
  if (answer.score === null) {
    return [el("p", { class: "problem" }, "None of the answers could be read as a score."), facts(answer)];
  }
  const value = el("p", { class: "value" }, el("b", {}, number(answer.score)), el("small", {}, spread(answer)));
  return [toned(value, answer.score), toned(distribution(answer), answer.score), facts(answer), ...reasoning(answer.answers)];
}

const spread = ({ std }) => (std === null ? "one answer" : `± ${number(std)}`);

function facts(answer) {
  const rows = [
    ["Mode", asked(answer, "answer")],
    answer.seed === null ? null : ["Seed", `${answer.seed}`],
    answer.entropy === null ? null : ["Entropy", `${number(answer.entropy)} nats`],
    ["Unreadable", unread(answer)],
    ["Version", el("code", {}, answer.version)],
    ["Size", sizes(answer.image)],
  ].filter(Boolean);
  return el("dl", { class: "facts" }, ...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** The sampled texts, folded away. */
export function reasoning(answers, title = "Reasoning") {
  if (!answers) return [];
  const texts = answers.map((text) => el("li", {}, text));
  return [el("details", { class: "texts" }, el("summary", {}, title), el("ol", {}, ...texts))];
}
