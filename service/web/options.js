// How the model is asked: the form that scores, preferences and ranks share.

import { byId } from "./dom.js";

const form = byId("options");

/** Shows what the serving model offers (`GET /v1/info`); the first mode is its default. */
export function offer({ modes, thinks }) {
  for (const input of form.elements.mode) {
    input.disabled = !modes.includes(input.value);
    input.checked = input.value === modes[0];
    if (input.disabled) input.parentElement.title = "The serving model thinks before it answers; it only samples.";
  }
  byId("reasoning").hidden = !thinks;
  form.elements.reasoning.checked = thinks;
  showFields();
}

/** The options of a request. `even`: as many votes as can be halved. */
export function chosen({ even = false } = {}) {
  const mode = form.elements.mode.value;
  if (mode !== "sampled") return mode ? { mode } : {};
  const { samples, temperature, seed, reasoning } = form.elements;
  const count = Number(samples.value);
  return {
    mode,
    samples: even ? count + (count % 2) : count,
    temperature: temperature.value,
    ...(seed.value && { seed: seed.value }),
    ...(reasoning.checked && { reasoning: true }),
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
  byId("sampling").hidden = form.elements.mode.value !== "sampled";
}
