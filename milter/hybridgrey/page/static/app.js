// The page: what is chosen, what is asked for and when. The daemon is asked each 15 s while the page is seen.

import { byId, fill, foreign, make } from "./dom.js";
import { onFind } from "./find.js";
import { flow } from "./flow.js";
import { exact, spanName } from "./format.js";
import { latest } from "./latest.js";
import { canDraw } from "./chart.js";
import { showDelays, showHand, showLists, showRules, showTops } from "./tables.js";
import { verdicts } from "./verdicts.js";

const EVERY = 15_000; // ms
const AGAIN = 2000; // ms: a reload of the daemon takes as long
const SOON = 5000; // ms: while something is wrong
const PATIENCE = 12_000; // ms: the daemon ends what takes ten seconds
const SILENCE = 4000; // ms without a word after which "Loading …" would be none

const controls = byId("controls");
const chosen = () => ({ span: controls.elements.span.value, host: controls.elements.host.value });

/** One question to the daemon; raises an Error that says why there is no answer. */
async function ask(name, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
  const limit = AbortSignal.timeout(PATIENCE);
  const reply = await fetch(`api/${name}?${query}`, { signal: signal ? AbortSignal.any([signal, limit]) : limit, cache: "no-store" });
  if (reply.status === 401) throw new Error("the password is not, or no longer, the right one; load the page again");
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.error);
  return answer;
}

const showFlow = flow();
const showVerdicts = verdicts();
const list = latest({ ask, host: () => chosen().host, onSearch: () => update("latest") });
let running = new AbortController();
let timer = 0;
let last = 0;
let failed = 0;
let stated = false;

function troubles(texts) {
  fill(byId("troubles"), ...texts.map((text) => make("p", { class: "trouble" }, text)));
}

function showHosts(hosts) {
  const select = controls.elements.host;
  const wanted = select.value;
  const all = hosts.includes(wanted) || !wanted ? hosts : [...hosts, wanted];
  const options = ["", ...all].map((host) => make("option", { value: host }, host || "all"));
  fill(select, ...options);
  select.value = wanted;
}

function showState(now) {
  stated = true;
  const [kind, word] = now.problems.length ? ["bad", "not well"] : now.notes.length ? ["poor", "warning"] : ["good", "well"];
  const words = make("span", { class: `state ${kind}` }, word);
  fill(byId("state"), foreign(now.host), " ", words, now.observe ? make("span", { class: "state poor" }, "observing only") : "");
  fill(byId("about"), `hybridgrey ${now.version}, ${now.workers} workers on `, foreign(now.host), `. Brought up to date at ${exact(now.now)} UTC.`);
}

/** Ask and show; `what`: "latest" for a search, once the rest is there, else all. */
async function update(what = "all") {
  clearTimeout(timer);
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const { span, host } = chosen();
  remember();
  let pause = EVERY;
  try {
    if (what === "all" || !last) {
      const [history, now, tops, hand] = await Promise.all([
        ask("history", { span, host }, signal),
        // Needs nothing but this host: it is said at once.
        ask("lists", {}, signal).then((answer) => (showState(answer), answer)),
        ask("tops", { span, host }, signal),
        ask("hand", {}, signal),
      ]);
      showHosts(history.hosts);
      showFlow(history);
      showVerdicts(history);
      showLists(history, now);
      showDelays(history);
      showRules(history);
      showHand(hand);
      showTops(tops, span);
      last = now.now;
      // What the history says of the store is the better word.
      const said = [...now.notes, ...now.problems.filter((one) => !history.trouble || !one.startsWith("store: "))];
      if (history.trouble) {
        said.push(history.trouble);
        pause = SOON;
      }
      if (!canDraw()) said.push("Charts are shown as tables: the library that draws them is not installed here (contrib/setup/page fetches it).");
      troubles(said);
    }
    list.show(await ask("latest", { host, ...list.query() }, signal));
    document.body.dataset.shown = `${span} ${host}`;
    failed = 0;
  } catch (error) {
    if (signal.aborted) return;
    failed += 1;
    if (failed === 1 && last) return schedule(AGAIN);
    const since = last ? ` What you see is of ${exact(last)} UTC.` : "";
    troubles([`No answer about ${spanName(span)}: ${error.message}.${since}`]);
    if (!stated) fill(byId("state"), "no answer yet");
    if (!last) pause = SOON;
  }
  schedule(pause);
}

function schedule(pause) {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(update, pause);
}

// What is chosen stands in the address after "#", which is not sent to anybody: it can be a bookmark.
function recall() {
  const state = new URLSearchParams(location.hash.slice(1));
  const { span, host } = controls.elements;
  const radio = [...span].find((one) => one.value === (state.get("span") ?? "day"));
  if (radio) radio.checked = true;
  const name = state.get("host") ?? "";
  if (![...host.options].some((one) => one.value === name)) host.append(make("option", { value: name }, name));
  host.value = name;
  byId("q").value = state.get("q") ?? "";
}
function remember() {
  const state = Object.entries({ ...chosen(), q: byId("q").value.trim() }).filter(([, value]) => value);
  history.replaceState(null, "", `#${new URLSearchParams(state)}`);
}

controls.addEventListener("change", () => update());
controls.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : update()));
// Not by its address, in which is what is chosen.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
addEventListener("popstate", () => {
  recall();
  list.restart();
  update();
});
onFind(async () => {
  recall();
  list.restart();
  await update("latest");
  byId("latest").scrollIntoView();
  byId("latest-summary").focus({ preventScroll: true });
});
setTimeout(() => stated || fill(byId("state"), "no answer yet"), SILENCE);
recall();
update();
