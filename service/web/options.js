// How the model is asked: the form that scores, preferences and ranks share.

import { byId } from "./dom.js";

const form = byId("options");

let modelThinks = false;

/** Shows what the serving model offers (`GET /v1/info`); the first mode is its default. */
export function offer({ modes, thinks }) {
  for (const input of form.elements.mode) {
    input.disabled = !modes.includes(input.value);
    input.checked = input.value === modes[0];
  }
  modelThinks = thinks;
  form.elements.reasoning.checked = thinks;
  showFields();
}

/** The options of a request. `even`: as many votes or thoughts as can be halved. */
export function chosen({ even = false, reasoning = true } = {}) {
  const mode = form.elements.mode.value;
  if (!mode || (mode === "expected" && !modelThinks)) return mode ? { mode } : {};
  const { temperature, seed, reasoning: texts } = form.elements;
  const drawn = mode === "sampled" ? "samples" : "thoughts";
  const count = Number(form.elements[drawn].value);
  return {
    mode,
    [drawn]: even ? count + (count % 2) : count,
    temperature: temperature.value,
    ...(seed.value && { seed: seed.value }),
    ...(reasoning && texts.checked && { reasoning: true }),
  };
}

/** Calls back when another choice was made that can be asked for. */
export function onChoice(callback) {
  form.addEventListener("change", () => {
    showFields();
    if (form.reportValidity()) callback();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
}

function showFields() {
  const sampled = form.elements.mode.value === "sampled";
  byId("sampling").hidden = !sampled && !modelThinks;
  byId("answers").hidden = !sampled;
  byId("thoughts").hidden = sampled;
  byId("reasoning").hidden = !modelThinks;
}
