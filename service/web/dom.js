// Elements out of code. Strings become text, never markup: file names and answers may hold anything.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. Attributes: "on…" adds a listener, true sets an empty attribute, null and false set none. */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element, otherwise as `el`. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** The element of the document with this id. */
export const byId = (id) => document.getElementById(id);

/** Sets CSS variables, which the page's policy forbids in markup. */
export function styled(element, variables) {
  for (const [name, value] of Object.entries(variables)) element.style.setProperty(name, value);
  return element;
}

/** Tells a screen reader. */
export function announce(text) {
  byId("announcer").textContent = text;
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}
