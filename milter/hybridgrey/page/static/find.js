// Links to the verdicts behind a name: each is the page's own address with a search in it, so that it can be
// opened beside, kept as a bookmark, and left again with the browser's way back.

import { foreign, make } from "./dom.js";

/** The word of a search that finds what has exactly this `name` as its `field` (see page/verdicts.py). */
export function wordFor(field, name) {
  return `${field}:${/^[^\s"\\]+$/.test(name) ? name : `"${name.replace(/["\\]/g, "\\$&")}"`}`;
}

/** A name that opens its verdicts; `text` is shown instead of it. */
export function finder(field, name, text = name) {
  return found(wordFor(field, name), {}, foreign(text));
}

/** A link to the verdicts that have all `words` of a search; `children`: what is shown. */
export function found(words, attributes, ...children) {
  const state = new URLSearchParams(location.hash.slice(1));
  state.set("q", words);
  return make("a", { class: "find", href: `#${state}`, ...attributes }, ...children);
}

/** Hear of links that are followed here, not beside; `go` is called when the address has changed. */
export function onFind(go) {
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a.find") : null;
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    history.pushState(null, "", link.getAttribute("href"));
    go();
  });
}
