// The pictures at hand, which all views share. Events: "list" (which there are), "state" (what is known of one).

import { announce, byId } from "./dom.js";
import { plural } from "./format.js";

class Pictures extends EventTarget {
  #list = [];
  #last = 0;

  get list() {
    return this.#list;
  }

  find(id) {
    return this.#list.find((picture) => picture.id === id);
  }

  /** Takes files as they are. Returns the pictures. */
  add(files) {
    const added = [...files].map((file) => ({
      id: (this.#last += 1),
      file,
      name: file.name || "pasted picture",
      url: URL.createObjectURL(file),
      state: "waiting",
    }));
    if (!added.length) return added;
    this.#list = [...this.#list, ...added];
    announce(`${plural(added.length, "picture")} added.`);
    this.dispatchEvent(new Event("list"));
    return added;
  }

  /** Sets what is known of a picture: its `state` (waiting, asking, scored, failed), `answer`, `sentence`. */
  set(picture, known) {
    Object.assign(picture, { answer: null, sentence: null }, known);
    this.dispatchEvent(new CustomEvent("state", { detail: picture }));
  }

  remove(picture) {
    this.#list = this.#list.filter((other) => other !== picture);
    URL.revokeObjectURL(picture.url);
    this.dispatchEvent(new Event("list"));
  }

  clear() {
    this.#list.forEach(({ url }) => URL.revokeObjectURL(url));
    this.#list = [];
    announce("All pictures removed.");
    this.dispatchEvent(new Event("list"));
  }
}

export const pictures = new Pictures();

/** Takes pictures from the file picker, the clipboard and whatever is dropped on the page. */
export function takeIn(added) {
  const take = (files) => added(pictures.add(files));
  byId("files").addEventListener("change", ({ target }) => {
    take(target.files);
    target.value = "";
  });
  byId("clear").addEventListener("click", () => {
    pictures.clear();
    byId("files").focus();
  });
  document.addEventListener("paste", ({ clipboardData }) => take(clipboardData.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    if (!event.handled) take(event.dataTransfer.files);
  });
  pictures.addEventListener("list", () => {
    byId("clear").hidden = !pictures.list.length;
    byId("drop").classList.toggle("small", pictures.list.length > 0);
  });
}
