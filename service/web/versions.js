// The view "Versions": what there is, how it was measured, and a change of what serves.

import { operate, versions } from "./api.js";
import { benchmark } from "./charts.js";
import { agreed } from "./dialog.js";
import { announce, byId, el } from "./dom.js";
import { milliseconds, number } from "./format.js";

const PLOTTED = 6;

const view = byId("view-versions");
const said = el("p", { class: "said", role: "status" });
const plots = el("div", { class: "plots" });
const list = el("ol", { class: "versions", reversed: true });
const address = el("input", { name: "address", type: "url", required: true, value: view.dataset.operators });
const key = el("input", { name: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true });
const form = el(
  "form",
  { class: "operators", onsubmit: (event) => event.preventDefault() },
  el("h2", {}, "Operators"),
  el("label", {}, "Address", address),
  el("label", {}, "Key", key),
  el("small", {}, "Promotion and rollback take the operators' key. It stays in this tab's memory."),
);

/** Builds the view. */
export function start() {
  view.append(plots, el("div", { class: "columns" }, list, form), said);
}

/** Reads the list again. */
export async function refresh() {
  try {
    render(await versions());
  } catch (error) {
    say(error.message, true);
  }
}

function render(all) {
  document.dispatchEvent(new CustomEvent("serving", { detail: { version: all.active } }));
  const newest = [...all.versions].reverse();
  list.replaceChildren(...newest.map((version) => item(version, all)));
  const measured = all.versions.filter(({ benchmarks }) => Object.keys(benchmarks).length).slice(-PLOTTED);
  plots.replaceChildren(...(measured.length ? [legend(measured, all), ...panels(measured, all)] : [unmeasured()]));
}

function item(version, { active, previous }) {
  const { id, parent, created, origin, profile, metrics, refused } = version;
  const rows = [
    ...(refused ? [["Refused", refused]] : []),
    ["Origin", origin],
    ["Made", el("time", { datetime: created }, new Date(created).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }))],
    ["Parent", parent ?? "none"],
    ["Profile", profile],
    ...Object.entries(metrics).map(([name, value]) => [name.replaceAll("_", " "), number(value, 3)]),
  ];
  return el(
    "li",
    { class: id === active ? "card version active" : "card version" },
    el("h2", {}, el("code", {}, id), mark(id, active, previous)),
    el("dl", { class: "facts" }, ...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    !refused && action(id, active, previous),
  );
}

function mark(id, active, previous) {
  if (id === active) return el("span", { class: "mark active" }, "serves");
  return id === previous && el("span", { class: "mark" }, "served before");
}

function action(id, active, previous) {
  if (id === active) return null;
  const back = id === previous;
  const path = back ? "internal/rollback" : `internal/versions/${id}/promote`;
  const verb = back ? "Roll back" : "Promote";
  return el("button", { class: "plain", type: "button", onclick: () => swap(path, id, verb) }, `${verb} to ${id}`);
}

async function swap(path, id, verb) {
  if (!form.reportValidity()) return;
  if (!(await agreed(`${verb} to ${id}?`, "All answers come from it then. Requests wait while the weights change; none fails.", verb))) return;
  say("Changing the weights …");
  view.setAttribute("aria-busy", "true");
  try {
    const { version, blackout_ms, drain_ms, reload_ms } = await operate(address.value, path, key.value);
    const parts = `${milliseconds(drain_ms)} for running ones to end, ${milliseconds(reload_ms)} to load`;
    await refresh();
    say(`${version} serves. New requests waited ${milliseconds(blackout_ms)}: ${parts}.`);
  } catch (error) {
    const unreachable = error.status === 0 ? ` Is the address right, and does it allow ${location.origin}?` : "";
    say(error.message + unreachable, true);
    if (error.status === 401) key.select();
  } finally {
    view.removeAttribute("aria-busy");
  }
}

function say(text, problem = false) {
  said.textContent = text;
  said.classList.toggle("problem", problem);
  if (problem) announce(text);
}

function panels(measured, { active }) {
  const names = [...new Set(measured.flatMap(({ benchmarks }) => Object.keys(benchmarks)))].sort();
  return names.map((name) => {
    const bars = measured.map(({ id, benchmarks }) => ({
      value: benchmarks[name]?.plcc ?? null,
      label: id,
      active: id === active,
    }));
    const counted = measured.findLast(({ benchmarks }) => benchmarks[name]);
    return benchmark(name.replaceAll("_", " "), counted.benchmarks[name].n, bars);
  });
}

function legend(measured, { active }) {
  const names = measured.map(({ id, origin }) => el("li", { class: id === active && "active" }, el("code", {}, id), ` ${origin}`));
  return el(
    "div",
    { class: "legend" },
    el("h2", {}, "Agreement with people"),
    el("p", {}, "Linear correlation (PLCC) of scores with mean opinions, per labelled set. From left to right:"),
    el("ol", {}, ...names),
  );
}

const unmeasured = () =>
  el("p", { class: "pending" }, "Nothing was measured yet: evoquality-trainer evaluate --record shows its results here.");
