// Which view is shown, and what holds for all of them.

import { info } from "./api.js";
import * as compare from "./compare.js";
import { byId, el } from "./dom.js";
import { offer, onChoice } from "./options.js";
import { pictures, takeIn } from "./pictures.js";
import * as score from "./score.js";
import * as scorer from "./scorer.js";
import * as versions from "./versions.js";
import * as wall from "./wall.js";

const VIEWS = {
  score: ["How good does it look?", "A score from 1, very poor, to 5, excellent, and the distribution it stands for."],
  compare: ["Which one looks better?", "Two pictures, asked in both orders, so that coming first is no advantage."],
  wall: ["From best to worst", "Pictures take their places as the answers stream in."],
  versions: ["Versions of the model", "What serves, what served before, and how well each agrees with people."],
};

let serving = { model: "", version: "" };

function show() {
  const name = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "score";
  const [title, lead] = VIEWS[name];
  byId("title").textContent = title;
  byId("lead").textContent = lead;
  document.title = `${title} · EvoQuality`;
  for (const view of Object.keys(VIEWS)) byId(`view-${view}`).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("intake").hidden = name === "versions";
  document.body.dataset.view = name;
  scorer.enable(name === "score" || name === "wall");
  if (name === "compare") compare.refresh();
  if (name === "wall") wall.refresh();
  if (name === "versions") versions.refresh();
}

/** Names the model and the version that gave the last answer. */
function showServing(answer) {
  const shown = byId("serving");
  serving = { model: answer.model ?? serving.model, version: answer.version };
  shown.replaceChildren(el("span", {}, serving.model), el("code", {}, serving.version));
  shown.hidden = false;
}

function showTally() {
  const { list } = pictures;
  const scored = list.filter(({ state }) => state === "scored").length;
  byId("tally").textContent = list.length ? `${scored} of ${list.length} scored` : "";
}

score.start();
wall.start();
compare.start();
versions.start();
takeIn((added) => {
  if (byId("intake").hidden && added.length) location.hash = "#score";
});
onChoice(() => {
  scorer.restart();
  compare.refresh();
  wall.refresh();
});
for (const event of ["list", "state"]) pictures.addEventListener(event, showTally);
document.addEventListener("serving", ({ detail }) => showServing(detail));
addEventListener("hashchange", () => {
  show();
  byId("title").focus({ preventScroll: true });
});
show();
info()
  .then((answer) => {
    offer(answer);
    showServing(answer);
  })
  .catch((error) => {
    byId("serving").textContent = error.message;
    byId("serving").hidden = false;
  });
