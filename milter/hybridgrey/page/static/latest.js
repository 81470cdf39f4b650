// The latest verdicts: searched by the daemon, each opening the way that led to it.

import { byId, fill, foreign, make, table } from "./dom.js";
import { finder } from "./find.js";
import { duration, exact, outcomeName, plural, timeElement } from "./format.js";
import { past } from "./past.js";

const FIRST = 20;
const MORE = 50;
const PAUSE = 250; // ms without a key before a search is sent

const LEADS = { new: "never seen before", early: "came back too early", passed: "came back and passed", known: "has passed before", network: "its network has passed often enough", full: "too many of its address wait already" };

function badge(one) {
  const name = one.enforced ? outcomeName(one.outcome) : `${outcomeName(one.outcome)} (observed)`;
  return make("span", { class: `outcome ${one.outcome}` }, name);
}

const listings = (one) => Object.keys(one.lists).join(", ");

function summaryOf(one) {
  return make(
    "summary",
    {},
    timeElement(one.t, exact(one.t)),
    badge(one),
    make("span", { class: "who" }, foreign(one.client), one.host ? foreign(one.host, "quieter") : null),
    make("span", { class: "mail" }, foreign(one.sender === "<>" || !one.sender ? "<>" : one.sender), make("span", { class: "arrow" }, " → "), foreign(one.recipient)),
    make("span", { class: "why" }, foreign(one.rule ?? "no rule"), one.why ? make("span", { class: "quieter" }, foreign(`, ${one.why}`)) : null, listings(one) ? make("span", { class: "quieter" }, foreign(` ${listings(one)}`)) : null),
  );
}

const pair = (name, ...value) => [make("dt", {}, name), make("dd", {}, ...value)];

/** What was recorded of a verdict. */
function record(one) {
  const greylist = one.state ? `${LEADS[one.state] ?? one.state}${one.age ? `, first seen ${duration(one.age)} before` : ""}` : null;
  return make(
    "dl",
    { class: "record" },
    ...pair("Judged at", one.mx ? finder("host", one.mx) : "–", ", ", timeElement(one.t, `${exact(one.t)} UTC`), one.queue_id ? ", queue id " : "", foreign(one.queue_id)),
    ...pair("HELO", one.helo ? foreign(one.helo) : "–"),
    ...pair("Client got", one.reply && one.enforced ? foreign(one.reply) : "let in", one.reply && !one.enforced ? make("span", {}, ", for it was only observed; else ", foreign(one.reply)) : null),
    ...(greylist ? pair("Greylist", greylist) : []),
    ...("scan_ms" in one ? pair("Score", one.score === null ? foreign(`unknown: ${one.scan_error ?? "–"}`) : `${one.score}${one.spam ? ", spam to the scanner" : ""}, in ${one.scan_ms} ms`) : []),
    ...pair("Waited", `${one.wait_ms} ms for lists and store`),
  );
}

/** The answer of api/way below the record. */
function wayOf(one, answer) {
  const lists = Object.entries(one.lists);
  const rules = answer.steps.map((step, at) => [make("span", {}, `${at + 1}. `, finder("rule", step.rule)), step.action, make("span", { class: `step ${step.outcome.replace(" ", "-")}` }, step.outcome), foreign(step.why)]);
  return [
    answer.agrees ? null : make("p", { class: "note warn" }, answer.note),
    table("The way through the rules", [{ title: "Rule" }, { title: "Action" }, { title: "Outcome" }, { title: "Why", wide: true }], rules),
    lists.length
      ? table("What the lists said of the client", [{ title: "List" }, { title: "Answer", wide: true }], lists.map(([label, said]) => [finder("list", label), foreign(Array.isArray(said) ? said.join(" ") : `error: ${said}`)]))
      : make("p", { class: "note" }, "No list had the client."),
  ];
}

export function latest({ ask, host, onSearch }) {
  const body = byId("latest-body");
  const items = new Map();
  const back = past({ ask, host });
  let wanted = FIRST;
  let timer = 0;
  let last = null;

  async function opened(item, one) {
    const details = item.querySelector("details");
    const room = item.querySelector(".way");
    if (!details.open || room.dataset.asked) return;
    room.dataset.asked = "yes";
    room.replaceChildren(record(one), make("p", { class: "note" }, "Looking up the way …"));
    try {
      const answer = await ask("way", { id: one.id, t: String(one.t) });
      room.replaceChildren(record(one), ...wayOf(one, answer).filter(Boolean));
    } catch (error) {
      delete room.dataset.asked;
      room.replaceChildren(record(one), make("p", { class: "note warn" }, `The way is not to be had: ${error.message}.`));
    }
  }

  function itemFor(one) {
    const known = items.get(one.id);
    if (known) {
      fill(known.querySelector("summary"), ...summaryOf(one).childNodes);
      return known;
    }
    const details = make("details", {}, summaryOf(one), make("div", { class: "way" }));
    const item = make("li", {}, details);
    details.addEventListener("toggle", () => opened(item, one));
    items.set(one.id, item);
    return item;
  }

  /** Show an answer of api/latest: known entries stay the elements they are, open or in focus. */
  function show(answer) {
    const all = back.joined(answer);
    const nodes = all.map(itemFor);
    const kept = new Set(nodes);
    for (const [id, item] of items) {
      if (!kept.has(item)) {
        item.remove();
        items.delete(id);
      }
    }
    nodes.forEach((node, at) => body.children[at] !== node && body.insertBefore(node, body.children[at] ?? null));
    const shown = all.length;
    const found = Math.max(answer.found, shown);
    const matching = answer.q ? ` that ${found === 1 ? "matches" : "match"} “${answer.q}”` : "";
    const words = shown || answer.q ? `${shown ? `${shown < found ? `${shown} of ` : ""}${plural(found, "verdict")}` : "No verdicts"}${matching}${shown ? ", the newest first." : "."}` : "No verdicts kept.";
    const alone = answer.alone ? ` Only those of this host are kept, and only while it runs, for ${answer.alone}.` : "";
    fill(byId("latest-summary"), `${words}${alone}${back.words(answer)}`);
    byId("more").hidden = answer.verdicts.length >= answer.found;
    byId("past").hidden = answer.verdicts.length < answer.found || !back.goesOn(answer);
    fill(byId("past"), answer.q ? "Search further back" : "Show older ones");
    last = answer;
  }

  byId("more").addEventListener("click", () => {
    wanted += MORE;
    onSearch();
  });
  byId("past").addEventListener("click", () => back.look(last, () => show(last)));
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    onSearch();
  });
  byId("q").addEventListener("input", () => {
    clearTimeout(timer);
    wanted = FIRST;
    timer = setTimeout(onSearch, PAUSE);
  });

  /** Begin with the first ones again. */
  const restart = () => (wanted = FIRST);

  return { show, restart, query: () => ({ q: byId("q").value.trim(), limit: String(wanted) }) };
}
