// The first part of the page: what became of the mail, as one flow through the rules, in words and as a table;
// and what waiting there was in it.
//
// The words of the picture are a list beside it, so they wrap as the room asks. The flow is drawn to where they
// stand: a strip for each row, which turns off at it.

import { bar, byId, fill, foreign, make, table } from "./dom.js";
import { finder, found, wordFor } from "./find.js";
import { laterTable, laterWords } from "./later.js";
import { count, duration, median, outcomeName, plural, share, spanName } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const LEAST = 2; // px of a strip: what is there can be seen
const BEND = 10; // px
const WIDEST = 260; // px of all strips
const LOW = 30; // px of a strip that fits beside a line of words
const MOST_REASONS = 8;

const WORDS = { accept: "let in", reject: "rejected", tempfail: "turned away for now", delay: "put off" };
const AT_ONCE = {
  known: ["let in at once: such mail has come back before", "reason:known"],
  network: ["let in at once: the client’s network passes as a whole", "reason:network"],
  domain: ["let in at once: the sender’s domain passes as a whole", "reason:domain"],
  expected: ["let in at once: it was expected", "reason:expected"],
  other: ["let in, for it could not be greylisted (the store was down, say)", "outcome:accepted"],
};

/** The median of delays as a sentence has it, without a sign. */
const bare = (delays) => median(delays).replace(/^[≤>]\u00a0/, "");

/** The rows of the picture: {key, outcome, count, words, search}; `key` tells those after the rules apart. */
function rowsOf({ flow, delays }) {
  const rows = flow.rows.map(({ kind, rule, outcome, count: number }) => {
    if (kind !== "rule") return { key: kind, outcome, count: number, words: [AT_ONCE[kind]?.[0] ?? kind], search: AT_ONCE[kind]?.[1] ?? "outcome:accepted" };
    const search = `${wordFor("rule", rule)} outcome:${outcomeName(outcome)}`;
    return { key: "rule", rule, outcome, count: number, words: [`${WORDS[outcome] ?? outcome} by `, foreign(rule)], search };
  });
  if (!flow.put_off) return rows;
  const after = flow.back ? `, half of it within ${bare(delays)}` : "";
  return [
    ...rows,
    { key: "put-off", outcome: "delay", count: flow.put_off, words: ["put off by greylisting: “please try again in a few minutes”"], note: "Mail servers do try again. Most programs that send spam do not.", search: "outcome:greylisted" },
    { key: "back", outcome: "accept", count: flow.back, words: [`came back and was let in${after}`], search: "reason:passed" },
    { key: "never", outcome: "delay", count: flow.never, words: ["has not come back so far"], search: "reason:new" },
  ];
}

/** The whole of it in sentences. */
function sentences(data) {
  const { flow, delays } = data;
  const took = (outcome) => flow.rows.filter((row) => row.outcome === outcome).reduce((sum, row) => sum + row.count, 0);
  const words = [`In ${spanName(data.span)} ${plural(flow.mails, "mail")} came, each counted once for each of its recipients.`];
  const parts = [
    [took("reject"), "rejected"],
    [took("accept"), "let in at once"],
    [took("tempfail"), "turned away for now"],
    [flow.put_off, "put off"],
  ].filter(([number]) => number);
  const said = parts.map(([number, what]) => `${count(number)} (${share(number, flow.mails)}) ${number === 1 ? "was" : "were"} ${what}`);
  if (said.length) words.push(`${said.length > 1 ? `${said.slice(0, -1).join(", ")} and ${said.at(-1)}` : said[0]}.`);
  if (flow.put_off) {
    const back = flow.back ? `${count(flow.back)} of those put off came back and ${flow.back === 1 ? "was" : "were"} let in, half of them within ${bare(delays)}` : "None of those put off has come back";
    words.push(`${back}; ${count(flow.never)} ${flow.never === 1 ? "has" : "have"} not come back so far.`);
  }
  if (data.observed) words.push("While only observing, all of it was let in.");
  return words.join(" ");
}

const svg = (tag, attributes, ...children) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

/** Widths in px for counts, together `room`; none less than LEAST. */
function widths(counts, room) {
  const all = counts.reduce((sum, one) => sum + one, 0) || 1;
  const wide = counts.map((one) => (one ? Math.max(LEAST, (one / all) * room) : 0));
  const sum = wide.reduce((total, one) => total + one, 0) || 1;
  return wide.map((one) => (one * room) / Math.max(sum, room));
}

/** What a path draws, to a hundredth of a pixel. */
const path = (words, ...numbers) => words.map((word, at) => word + (at < numbers.length ? Number(Math.max(0, numbers[at]).toFixed(2)) : "")).join("");

/** A strip from `left`, `wide`, that comes from `top` and turns off to the right edge around `at`. */
function strip(left, wide, top, at, edge) {
  const right = left + wide;
  const [above, below] = [at - wide / 2, at + wide / 2];
  const inner = Math.max(0, Math.min(BEND, edge - right, above - top));
  const outer = Math.max(0, Math.min(BEND + wide, edge - left, below - top));
  return path`M${left} ${top}H${right}V${above - inner}Q${right} ${above} ${right + inner} ${above}H${edge}V${below}H${left + outer}Q${left} ${below} ${left} ${below - outer}Z`;
}

export function flow() {
  const figure = byId("flow-figure");
  const picture = byId("flow-picture");
  const list = byId("flow-rows");
  let rows = [];

  /** Draw the strips to where the rows stand now. */
  function draw() {
    const items = [...list.children];
    const room = picture.clientWidth;
    if (!room || items.length !== rows.length + 1) return;
    const ends = rows.map((_row, at) => at).filter((at) => rows[at].key !== "put-off");
    const wide = widths(ends.map((at) => rows[at].count), Math.min(WIDEST, room - 24));
    // A row has room for its strip, before it is asked where it stands.
    ends.forEach((at, place) => (items[at + 1].style.minHeight = wide[place] > LOW ? `${Math.ceil(wide[place]) + 4}px` : ""));
    const [origin, height] = [figure.getBoundingClientRect().top, figure.clientHeight];
    const box = items.slice(1).map((item) => item.getBoundingClientRect());
    const middle = (at) => box[at].top - origin + box[at].height / 2;
    const start = items[0].getBoundingClientRect().bottom - origin + 2;
    const header = rows.findIndex(({ key }) => key === "put-off");
    const turn = header < 0 ? 0 : middle(header);
    const drawn = [];
    let right = wide.reduce((sum, one) => sum + one, 0);
    ends.forEach((at, place) => {
      const left = right - wide[place];
      if (wide[place]) {
        const { key, outcome, search } = rows[at];
        const after = key === "back" || key === "never";
        const begin = after ? turn : start;
        const drawing = svg("path", { class: `${outcome} ${key}`, d: strip(left, wide[place], begin, middle(at), room) });
        const link = found(search, { tabindex: "-1" });
        drawn.push(svg("a", { class: "find", href: link.getAttribute("href"), tabindex: "-1" }, drawing));
        if (after) drawn.push(svg("rect", { class: "delay", x: left, y: start, width: wide[place], height: Math.max(0, turn - start) }));
      }
      right = left;
    });
    if (header >= 0) drawn.push(svg("path", { class: "turn", d: `M0 ${turn}H${room}` }));
    picture.setAttribute("viewBox", `0 0 ${room} ${height}`);
    picture.style.height = `${height}px`;
    picture.replaceChildren(...drawn);
  }

  function item({ key, outcome, count: number, words, note, search }, all) {
    return make(
      "li",
      { class: `${outcome} ${key}` },
      found(search, {}, make("b", {}, count(number)), " ", make("span", { class: "part" }, share(number, all)), " ", make("span", { class: "words" }, ...words)),
      note ? make("span", { class: "quieter" }, ` ${note}`) : null,
    );
  }

  function numbers(data) {
    const columns = [{ title: "What became of it", wide: true }, { title: "Mails", number: true }, { title: "Share", number: true }];
    const body = rows.map(({ count: number, words, search }) => [found(search, {}, ...words.map((one) => (one instanceof Node ? one.cloneNode(true) : one))), count(number), share(number, data.flow.mails)]);
    const early = data.flow.early ? [[make("span", {}, "tries that came too early, not counted again"), count(data.flow.early), "–"]] : [];
    fill(byId("flow-numbers"), table(`What became of the mail in ${spanName(data.span)}`, columns, [["came in all", count(data.flow.mails), share(data.flow.mails, data.flow.mails)], ...body, ...early]));
  }

  new ResizeObserver(() => draw()).observe(figure);

  /** Show an answer of api/history. */
  return function show(data) {
    byId("flow").hidden = !data.flow.mails;
    if (!data.flow.mails) return;
    rows = rowsOf(data);
    fill(byId("flow-summary"), sentences(data));
    fill(list, make("li", { class: "all" }, make("b", {}, count(data.flow.mails)), " mails came"), ...rows.map((row) => item(row, data.flow.mails)));
    draw();
    numbers(data);
    kindness(data);
  };
}

/** What waiting there was: of all accepted mail, and what spared it. */
function kindness(data) {
  const { waits, thanks, span } = data;
  const { accepted, delayed, over } = waits;
  const seconds = (value) => (value === null ? ">\u00a01\u00a0d" : duration(value));
  const tile = (name, value, note) => make("div", { class: "tile" }, make("dt", {}, name), make("dd", {}, make("b", {}, value), make("span", {}, note)));
  byId("kindness").hidden = !accepted;
  if (!accepted) return;
  fill(
    byId("kindness-tiles"),
    tile("half of it waited", seconds(waits.median), "at most"),
    tile("95 of 100 waited", seconds(waits.p95), "at most"),
    tile("over 10 minutes", share(over, accepted), plural(over, "mail")),
  );
  fill(byId("kindness-summary"), `Of ${plural(accepted, "accepted mail")} in ${spanName(span)}, ${count(delayed)} ${delayed === 1 ? "was" : "were"} delayed (${share(delayed, accepted)}).`);
  const rows = thanks.slice(0, MOST_REASONS).map(({ reason, why, count: number }) => [
    finder("reason", reason, why),
    make("span", { class: "barred" }, bar(number / accepted, "accept"), make("span", {}, share(number, accepted))),
    count(number),
  ]);
  fill(byId("kindness-body"), rows.length ? table("Why mail was let in without waiting", [{ title: "Let in at once, because", wide: true }, { title: "Share", number: true }, { title: "Mails", number: true }], rows) : "");
  fill(byId("later-summary"), ...laterWords(data));
  fill(byId("later-body"), ...laterTable(data));
}
