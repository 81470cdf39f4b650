// Elements out of data. Every text goes in as a text node: nothing here, or anywhere in the page, parses
// markup, so what a client has sent cannot become any.

/** An element by its id; those of index.html are all there. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element. `attributes`: name to value; true is an empty attribute, false, null and undefined none;
 * "on…" adds a listener. Children are nodes or texts; null and undefined are passed over.
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A text of a client's: of its own direction, so that it cannot turn what stands beside it around. */
export const foreign = (text, className) => make("bdi", { class: className }, text ?? "");

/** Put children into an element, if they say anything new: selections and focus outlive an update. */
export function fill(element, ...children) {
  const wanted = make("div", {}, ...children).childNodes;
  const there = element.childNodes;
  if (wanted.length !== there.length || [...wanted].some((node, at) => !node.isEqualNode(there[at]))) {
    element.replaceChildren(...wanted);
  }
}

/** A bar of a share between 0 and 1; what it says stands beside it as a number. */
export function bar(share, className = "") {
  const inner = make("span", { class: `bar-fill ${className}` });
  inner.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return make("span", { class: "bar", "aria-hidden": "true" }, inner);
}

/**
 * A table. `columns`: {title, number: right-aligned, wide: takes the room}; rows are lists of nodes or texts,
 * the first of them the row's heading.
 */
export function table(caption, columns, rows) {
  const cell = (tag, column, content, extra = {}) =>
    make(tag, { class: [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ") || null, ...extra }, content);
  return make(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
    make(
      "table",
      {},
      make("caption", { class: "quiet" }, caption),
      make("thead", {}, make("tr", {}, ...columns.map((one) => cell("th", one, one.title, { scope: "col" })))),
      make(
        "tbody",
        {},
        ...rows.map((row) =>
          make(
            "tr",
            {},
            ...row.map((content, at) => (at ? cell("td", columns[at], content) : cell("th", columns[0], content, { scope: "row" }))),
          ),
        ),
      ),
    ),
  );
}
