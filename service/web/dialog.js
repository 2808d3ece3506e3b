// One question before something that everybody will notice.

import { el } from "./dom.js";

/** Resolves to whether the person agreed. */
export function agreed(question, explanation, verb) {
  return new Promise((resolve) => {
    const dialog = el(
      "dialog",
      { "aria-labelledby": "question", onclose: () => resolve(dialog.returnValue === "yes") || dialog.remove() },
      el(
        "form",
        { method: "dialog" },
        el("h2", { id: "question" }, question),
        el("p", {}, explanation),
        el("div", { class: "buttons" }, el("button", { class: "plain", value: "no" }, "Cancel"), el("button", { class: "strong", value: "yes" }, verb)),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
