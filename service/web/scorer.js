// Has every picture scored, many in one request; again when the options change.

import { score, scoreAll } from "./api.js";
import { announce } from "./dom.js";
import { plural } from "./format.js";
import { chosen } from "./options.js";
import { pictures } from "./pictures.js";

const AT_ONCE = 3;
const GROUP = { pictures: 16, bytes: 24 * 2 ** 20 };

let enabled = false;
let running = 0;
let round = new AbortController();

/** Scores what waits from now on, or stops asking for more. */
export function enable(wanted) {
  enabled = wanted;
  next();
}

/** Forgets all scores and asks again. */
export function restart() {
  round.abort();
  round = new AbortController();
  running = 0;
  pictures.list.forEach((picture) => pictures.set(picture, { state: "waiting" }));
  next();
}

/** Asks again for one picture. */
export function retry(picture) {
  pictures.set(picture, { state: "waiting" });
  next();
}

pictures.addEventListener("list", next);

function next() {
  while (enabled && running < AT_ONCE) {
    const group = waiting();
    if (!group.length) return;
    ask(group);
  }
}

/** The next pictures whose files fit into one request; a large one goes alone. */
function waiting() {
  const group = [];
  let bytes = 0;
  for (const picture of pictures.list.filter(({ state }) => state === "waiting")) {
    bytes += picture.file.size;
    if (group.length && (bytes > GROUP.bytes || group.length === GROUP.pictures)) break;
    group.push(picture);
  }
  return group;
}

async function ask(group) {
  const { signal } = round;
  running += 1;
  const note = (picture, known) => !signal.aborted && pictures.set(picture, known);
  const unanswered = () => group.filter(({ state }) => state === "asking");
  group.forEach((picture) => note(picture, { state: "asking" }));
  try {
    const call = { signal, waiting: (sentence) => unanswered().forEach((one) => note(one, { state: "asking", sentence })) };
    await answers(group, (picture, known) => note(picture, known), call);
  } catch (error) {
    unanswered().forEach((picture) => note(picture, { state: "failed", sentence: error.message }));
  }
  if (signal.aborted) return;
  running -= 1;
  next();
  if (!running) report();
}

async function answers(group, note, call) {
  const options = { ...chosen(), distribution: true };
  const files = group.map(({ file }) => file);
  if (group.length === 1) return note(group[0], { state: "scored", answer: await score(files[0], options, call) });
  const each = ({ index, result, problem }) =>
    note(group[index], result ? { state: "scored", answer: result } : { state: "failed", sentence: problem.detail });
  return scoreAll(files, options, each, call);
}

function report() {
  const scored = pictures.list.filter(({ state }) => state === "scored").length;
  announce(`${scored} of ${plural(pictures.list.length, "picture")} scored.`);
}
