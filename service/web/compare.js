// The view "Compare": two pictures side by side, the preference and what it rests on.

import { compare } from "./api.js";
import { preference } from "./charts.js";
import { announce, byId, el } from "./dom.js";
import { asked as askedIn, percent, signed, sizes, unread } from "./format.js";
import { chosen } from "./options.js";
import { pictures } from "./pictures.js";
import { preview, reasoning } from "./score.js";

const SIDES = ["first", "second"];
const LETTER = { first: "A", second: "B" };

const slots = { first: null, second: null };
const margin = el("input", { id: "margin", type: "range", min: 0, max: 0.5, step: 0.01, value: 0 });
const marginSaid = el("output", { for: "margin" });
const parts = {
  pair: el("div", { class: "pair" }),
  result: el("div", { class: "result" }),
  margin: el("div", { class: "margin", hidden: true }, el("label", { for: "margin" }, "Tie margin"), margin, marginSaid),
  details: el("div", { class: "details" }),
  tray: el("ul", { class: "tray" }),
};
let answer = null;
let asked = null;
let run = new AbortController();

/** Builds the view. */
export function start() {
  byId("view-compare").append(parts.pair, parts.result, parts.margin, parts.details, parts.tray);
  margin.addEventListener("input", showVerdict);
  pictures.addEventListener("list", () => {
    for (const side of SIDES) if (slots[side] && !pictures.find(slots[side].id)) slots[side] = null;
    for (const side of SIDES) slots[side] ??= pictures.list.find((one) => !Object.values(slots).includes(one)) ?? null;
    renderPictures();
    refresh(false);
  });
  renderPictures();
}

/** Asks for the preference if the view is shown; `again` even if this pair was asked before. */
export async function refresh(again = true) {
  const { first, second } = slots;
  if (byId("view-compare").hidden || (!again && asked === first && asked === second)) return;
  run.abort();
  run = new AbortController();
  const { signal } = run;
  answer = null;
  parts.details.replaceChildren();
  parts.margin.hidden = true;
  const say = (text, kind) => !signal.aborted && parts.result.replaceChildren(el("p", { class: kind }, text));
  if (!first || !second) return say("Take two pictures to compare.", "pending");
  say("Looking at both …", "pending");
  try {
    answer = await compare(first.file, second.file, chosen({ even: true }), { signal, waiting: (text) => say(text, "pending") });
    showAnswer();
  } catch (error) {
    say(error.message, "problem");
  }
}

function choose(side, picture) {
  const other = side === "first" ? "second" : "first";
  if (slots[other] === picture) slots[other] = slots[side];
  slots[side] = picture;
  renderPictures();
  refresh();
}

function renderPictures() {
  const swap = el("button", { class: "plain", type: "button", onclick: () => choose("first", slots.second) }, "Swap");
  parts.pair.replaceChildren(slot("first"), slots.first && slots.second ? swap : "", slot("second"));
  parts.tray.replaceChildren(...(pictures.list.length > 2 ? pictures.list.map(thumbnail) : []));
}

function slot(side) {
  const picture = slots[side];
  const take = (files) => {
    const [taken] = pictures.add(files);
    if (taken) choose(side, taken);
  };
  const input = el("input", { type: "file", accept: "image/*", onchange: ({ target }) => take(target.files) });
  const dropped = (event) => {
    event.handled = true;
    take(event.dataTransfer.files);
  };
  return el(
    "label",
    { class: "slot", ondrop: dropped },
    input,
    picture ? preview(picture) : el("div", { class: "frame" }, el("span", {}, "Drop or choose a picture")),
    el("span", { class: "caption" }, el("b", {}, LETTER[side]), el("span", {}, picture?.name ?? "No picture yet")),
  );
}

function thumbnail(picture) {
  const put = (side) =>
    el(
      "button",
      {
        type: "button",
        "aria-pressed": `${slots[side] === picture}`,
        "aria-label": `Take ${picture.name} as ${LETTER[side]}`,
        onclick: () => {
          choose(side, picture);
          parts.tray.children[pictures.list.indexOf(picture)].querySelectorAll("button")[SIDES.indexOf(side)].focus();
        },
      },
      LETTER[side],
    );
  return el("li", { title: picture.name }, preview(picture), el("div", {}, ...SIDES.map(put)));
}

function showAnswer() {
  showVerdict();
  announce(parts.result.querySelector("h2").textContent);
  parts.margin.hidden = answer.probability_first === null;
  const { position_bias: bias, orders, images } = answer;
  const rows = [
    ["Mode", askedIn(answer, "vote")],
    answer.seed === null ? null : ["Seed", `${answer.seed}`],
    ["Position bias", bias === null ? "–" : `${signed(100 * bias, 1)} points for the picture shown first`],
    ["Unreadable", unread(answer)],
    ["A", sizes(images[0])],
    ["B", sizes(images[1])],
    ["Version", el("code", {}, answer.version)],
  ].filter(Boolean);
  parts.details.replaceChildren(
    ordersTable(orders),
    el("dl", { class: "facts" }, ...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    ...orders.flatMap(({ answers, shown_first }) => reasoning(answers, `Reasoning, ${LETTER[shown_first]} shown first`)),
  );
}

function showVerdict() {
  const width = margin.valueAsNumber;
  marginSaid.textContent = width ? `${percent(0.5 - width)} to ${percent(0.5 + width)} is a tie` : "only exactly half is a tie";
  if (!answer) return;
  const p = answer.probability_first;
  if (p === null) return parts.result.replaceChildren(el("h2", {}, "No answer could be read"));
  parts.result.replaceChildren(
    el("h2", {}, verdict(p, width)),
    el("div", { class: "odds" }, el("b", {}, `A ${percent(p)}`), preference(p, width), el("b", {}, `B ${percent(1 - p)}`)),
  );
}

/** The service's own rule, so that the slider needs no new answers. */
function verdict(p, width) {
  if (Math.abs(p - 0.5) <= width) return "A tie";
  return p > 0.5 ? "A looks better" : "B looks better";
}

function ordersTable(orders) {
  const rows = orders.map(({ shown_first: shown, probability_first: p, votes, unreadable, cut_off }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, LETTER[shown]),
      el("td", {}, percent(p)),
      votes && el("td", {}, `${votes.first} : ${votes.second}`),
      el("td", {}, unread({ unreadable, cut_off })),
    ),
  );
  const heads = ["Shown first", "Prefers A", orders[0].votes && "Votes A : B", "Unreadable"].filter(Boolean);
  return el(
    "table",
    {},
    el("caption", {}, "Both orders"),
    el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows),
  );
}
