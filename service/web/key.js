// The key of a service that wants one: asked for at the first 401, kept in this tab's memory alone.

import { byId } from "./dom.js";

let key = null;
let asked = null;

/** Calls `request` with the headers of the key, and again with the one that is typed in when it answers 401. */
export async function withKey(request, waiting) {
  for (;;) {
    const used = key;
    const response = await request(used === null ? {} : { Authorization: `Bearer ${used}` });
    if (response.status !== 401) return response;
    waiting("Waiting for the key.");
    if (key === used) await (asked ??= ask(used));
  }
}

function ask(refused) {
  const [bar, field] = [byId("key"), byId("key-value")];
  byId("key-why").textContent =
    refused === null ? "This service answers to those who have a key." : "The service does not know this key.";
  bar.hidden = false;
  field.value = "";
  field.focus();
  return new Promise((resolve) => {
    const take = (event) => {
      event.preventDefault();
      key = field.value.trim();
      field.value = "";
      bar.hidden = true;
      bar.removeEventListener("submit", take);
      asked = null;
      resolve();
    };
    bar.addEventListener("submit", take);
  });
}
