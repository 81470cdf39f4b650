// The parts of the page that are tables: lists, delays, rules, top networks and domains.

import { bar, byId, fill, foreign, make, table } from "./dom.js";
import { finder } from "./find.js";
import { OUTCOMES, count, dated, duration, median, plural, share, spanName, timeElement } from "./format.js";

const sum = (values) => values.reduce((total, value) => total + value, 0);
const nothing = (text) => make("p", { class: "note" }, text);
const unknown = () => nothing("Not known while the store does not answer.");
const withBar = (text, part, all, className) => make("span", { class: "barred" }, bar(all ? part / all : 0, className), make("span", {}, text));
const milliseconds = (seconds) => (seconds === null ? "–" : `${seconds < 0.01 ? (seconds * 1000).toFixed(1) : Math.round(seconds * 1000)} ms`);

function state(one) {
  if (one.suspended) return make("span", { class: "state bad" }, "suspended");
  if (one.suspended === null) return make("span", { class: "state none" }, "not in use");
  if (one.health === "silent") return make("span", { class: "state poor" }, "silent");
  if (one.health === "warning") return make("span", { class: "state poor" }, "test point wrong");
  const asked = one.listed + one.unlisted + one.error + one.timeout;
  if (asked && (one.error + one.timeout) / asked > 0.1) return make("span", { class: "state poor" }, "often fails");
  return make("span", { class: "state good" }, "votes");
}

/** What each list said, and how much of the rejecting hangs on it alone. */
export function showLists(history, now) {
  const rejects = sum(history.outcomes.reject);
  const known = new Map(now.lists.map((one) => [one.list, one]));
  const rows = history.lists.map((one) => ({ suspended: null, seconds: null, ...known.get(one.list), ...one }));
  for (const one of now.lists) {
    if (!history.lists.some(({ list }) => list === one.list)) {
      rows.push({ listed: 0, unlisted: 0, error: 0, timeout: 0, sole: 0, shared: 0, ...one });
    }
  }
  if (!rows.length) {
    fill(byId("lists-summary"));
    return fill(byId("lists-body"), nothing("No rule asks a DNS list."));
  }
  rows.sort((a, b) => b.listed - a.listed || (a.list < b.list ? -1 : 1));
  const blind = history.trouble && !history.lists.length;
  const number = (value) => (blind ? "–" : count(value));
  const suspended = rows.filter((one) => one.suspended);
  fill(
    byId("lists-summary"),
    suspended.length ? `Suspended, without a vote until well again: ${suspended.map(({ list }) => list).join(", ")}. ` : "",
    blind
      ? `What they said is not known while the store does not answer. Health and time are those seen by ${now.host}.`
      : `Shares are of the ${plural(rejects, "recipient")} rejected in ${spanName(history.span)}; what is rejected by one list alone, no other blocklist would have caught. Hits and the like are answers that the lists gave; what the cache knew is not counted again. Health and time are those seen by ${now.host}.`,
  );
  const columns = [
    { title: "List", wide: true },
    { title: "Health" },
    { title: "Hits", number: true },
    { title: "Rejects with this list", number: true },
    { title: "Rejects by this list alone", number: true },
    { title: "Not listed", number: true },
    { title: "Errors", number: true },
    { title: "No answer", number: true },
    { title: "Time", number: true },
  ];
  const body = rows.map((one) => [
    finder("list", one.list),
    state(one),
    number(one.listed),
    one.sole + one.shared ? `${count(one.sole + one.shared)} (${share(one.sole + one.shared, rejects)})` : "–",
    one.sole ? withBar(`${count(one.sole)} (${share(one.sole, rejects)})`, one.sole, rejects, "reject") : "–",
    number(one.unlisted),
    number(one.error),
    number(one.timeout),
    milliseconds(one.seconds),
  ]);
  fill(byId("lists-body"), table("What the lists said", columns, body));
}

/** The delays of mail that was greylisted and came back, from the first attempt to acceptance. */
export function showDelays(history) {
  const { buckets, mean, coarse } = history.delays;
  const all = sum(buckets.map((one) => one.count));
  const seen = history.greylist;
  const waiting = seen.new + seen.early;
  if (!all) {
    fill(byId("delays-summary"), waiting ? `No greylisted mail came back in ${spanName(history.span)}; ${plural(waiting, "attempt was", "attempts were")} put off.` : "");
    return fill(byId("delays-body"), waiting ? "" : history.trouble ? unknown() : nothing(`No mail was greylisted in ${spanName(history.span)}.`));
  }
  fill(
    byId("delays-summary"),
    `${plural(all, "recipient")} of greylisted mail came back and passed, after ${median(history.delays)} (median), ${duration(mean)} (mean). ` +
      `${plural(seen.known + seen.network, "recipient was", "recipients were")} known already and not delayed; ${plural(waiting, "attempt was", "attempts were")} put off.` +
      (coarse ? ` Of ${plural(coarse, "recipient")} a host of an older version told no more than that it was up to ${duration(buckets[0].le)}.` : ""),
  );
  const most = Math.max(...buckets.map((one) => one.count));
  const name = ({ from, le }) => {
    if (le === null) return `more than ${duration(from)}`;
    return from ? `${duration(from)} to ${duration(le)}` : `up to ${duration(le)}`;
  };
  const filled = buckets.filter(({ count: some }) => some);
  const rows = buckets.slice(buckets.indexOf(filled[0]), buckets.indexOf(filled.at(-1)) + 1).map((one) => [name(one), withBar("", one.count, most, "delay"), count(one.count), share(one.count, all)]);
  fill(
    byId("delays-body"),
    table("Delays of greylisted mail that passed", [{ title: "Delay" }, { title: "Distribution", wide: true }, { title: "Recipients", number: true }, { title: "Share", number: true }], rows),
  );
}

const byOutcome = (name) => [{ title: name, wide: true }, ...OUTCOMES.map((one) => ({ title: one.name, number: true })), { title: "All", number: true }];
const outcomeRow = (name, one) => [name, ...OUTCOMES.map(({ key }) => (one[key] ? count(one[key]) : "–")), count(sum(OUTCOMES.map(({ key }) => one[key] ?? 0)))];

/** What each rule decided. */
export function showRules(history) {
  if (!history.rules.length) return fill(byId("rules-body"), history.trouble ? unknown() : nothing("No rule has decided anything in this time."));
  const tried = history.rules.some((one) => one.noted);
  const columns = [...byOutcome("Rule"), ...(tried ? [{ title: "noted only", number: true }] : [])];
  const rows = history.rules.map((one) => [...outcomeRow(finder("rule", one.rule), one), ...(tried ? [one.noted ? count(one.noted) : "–"] : [])]);
  fill(byId("rules-body"), table("Recipients by the rule that decided", columns, rows));
}

/** What was allowed and blocked by hand; the page only shows it. */
export function showHand({ count: all, entries }) {
  byId("hand").hidden = !all;
  if (!all) return;
  const more = all > entries.length ? `The newest ${count(entries.length)} of ${count(all)}; hybridgrey entries has them all. ` : "";
  fill(byId("hand-summary"), `${more}They are changed on the command line: hybridgrey allow, block and unlist.`);
  const columns = [{ title: "Subject", wide: true }, { title: "Is" }, { title: "Since" }, { title: "Until" }, { title: "Who" }, { title: "Why", wide: true }];
  const rows = entries.map((one) => [
    make("span", {}, one.of === "client" ? "" : `${one.of} `, foreign(one.subject)),
    make("span", { class: `state ${one.kind === "allow" ? "good" : "bad"}` }, one.kind === "allow" ? "allowed" : "blocked"),
    timeElement(one.since, dated(one.since)),
    one.until ? timeElement(one.until, dated(one.until)) : "unlisted",
    make("span", {}, foreign(one.who), " on ", foreign(one.host)),
    foreign(one.comment),
  ]);
  fill(byId("hand-body"), table("Entries by hand", columns, rows));
}

/** The heaviest client networks and sender domains. */
export function showTops(tops, span) {
  const none = tops.known ? "None in this time." : "Not to be had while the store is down.";
  const some = span === "year" ? "Of the last 32 days, for which they are kept." : null;
  for (const [id, name, field, rows] of [
    ["networks", "Network", "client", tops.networks],
    ["domains", "Domain", "domain", tops.domains],
  ]) {
    const title = `Top ${id === "networks" ? "client networks" : "sender domains"}`;
    fill(byId(`${id}-body`), ...(rows.length ? [some && nothing(some), table(title, byOutcome(name), rows.map((one) => outcomeRow(finder(field, one.name || "<>", one.name || "(bounces)"), one)))] : [nothing(none)]));
  }
}
