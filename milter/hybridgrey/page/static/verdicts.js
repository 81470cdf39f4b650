// The first part of the page: what was done with mail, as totals, as a chart, in words and as a table.

import { canDraw, chart } from "./chart.js";
import { byId, fill, make, table } from "./dom.js";
import { OUTCOMES, count, duration, median, moment, plural, rate, share, spanName, unitOf } from "./format.js";
import { showMarks } from "./marks.js";

const sum = (row) => row.reduce((total, value) => total + value, 0);

/** The answer of api/history as the chart wants it; the last step may not be over yet. */
function series(data) {
  const { start, step, elapsed, outcomes } = data;
  const times = outcomes.accept.map((_value, at) => start + at * step);
  const seconds = times.map((_time, at) => (at === times.length - 1 ? Math.max(elapsed, step / 4) : step));
  const whole = times.map((_time, at) => sum(OUTCOMES.map(({ key }) => outcomes[key][at])) / seconds[at]);
  const some = whole.filter((value) => value > 0);
  // By what is usual where there is anything: a burst in a quiet week must not make dust of all the rest.
  const unit = unitOf(some.length ? sum(some) / some.length : 0);
  const rates = Object.fromEntries(OUTCOMES.map(({ key }) => [key, outcomes[key].map((value, at) => (value / seconds[at]) * unit.seconds)]));
  return { span: data.span, step, times, unit, rates, counts: outcomes };
}

export function verdicts() {
  let data = null;
  let drawn = null;
  const picture = chart(byId("chart"), OUTCOMES, {
    onMoment: legend,
    describe: (at) => `${moment(drawn.times[at], drawn.span)}: ${said(at)}`,
  });

  const said = (at) => OUTCOMES.map(({ key, name }) => `${rate(drawn.rates[key][at])} ${name}`).join(", ") + ` per ${drawn.unit.name}`;

  /** The names of the colours, with the numbers under the cursor. */
  function legend(at) {
    if (!drawn) return;
    const items = OUTCOMES.map(({ key, name }) =>
      make(
        "li",
        {},
        make("span", { class: `swatch ${key}` }),
        name,
        at === null ? null : make("b", {}, ` ${rate(drawn.rates[key][at])}`),
      ),
    );
    const when = at === null ? null : make("li", { class: "when" }, `per ${drawn.unit.name} at ${moment(drawn.times[at], drawn.span)}`);
    fill(byId("legend"), ...items, when);
  }

  function tiles(totals, all) {
    const tile = (name, value, note, key) =>
      make("div", { class: "tile" }, make("dt", {}, key ? make("span", { class: `swatch ${key}` }) : null, name), make("dd", {}, make("b", {}, value), make("span", {}, note)));
    fill(
      byId("tiles"),
      ...OUTCOMES.map(({ key, name }) => tile(name, count(totals[key]), share(totals[key], all), key)),
      tile("median delay", median(data.delays), "of greylisted mail that passed"),
    );
  }

  function summary(totals, all) {
    if (!all) return data.trouble ? `What was judged in ${spanName(data.span)} is not known here while the store does not answer.` : `Nothing was judged in ${spanName(data.span)}.`;
    const parts = OUTCOMES.filter(({ key }) => totals[key]).map(({ key, name }) => `${share(totals[key], all)} ${name}`);
    const whole = drawn.times.map((_time, at) => sum(OUTCOMES.map(({ key }) => drawn.rates[key][at])));
    const most = whole.indexOf(Math.max(...whole));
    const words = [
      `In ${spanName(data.span)} ${plural(all, "recipient was", "recipients were")} judged: ${parts.join(", ")}.`,
      `Most at ${moment(drawn.times[most], data.span)}: ${rate(whole[most])} per ${drawn.unit.name}.`,
    ];
    if (data.observed) words.push(`${count(data.observed)} of them ${data.observed === 1 ? "was" : "were"} only observed: that mail was let through whatever the verdict.`);
    if (data.both) words.push(`The clients of ${plural(data.both, "recipient")} were on a blocklist and on an allowlist.`);
    if (data.marks.length) words.push(`${plural(data.marks.length, "mark")}, listed below.`);
    return words.join(" ");
  }

  function numbers() {
    const body = byId("numbers-body");
    if (!byId("numbers").open || !drawn) return;
    const columns = [{ title: data.span === "year" ? "Day (UTC)" : "From (UTC)" }, ...OUTCOMES.map(({ name }) => ({ title: name, number: true })), { title: `per ${drawn.unit.name}`, number: true }];
    const rows = drawn.times.map((time, at) => [
      moment(time, data.span),
      ...OUTCOMES.map(({ key }) => count(drawn.counts[key][at])),
      rate(sum(OUTCOMES.map(({ key }) => drawn.rates[key][at]))),
    ]);
    fill(body, table(`Verdicts in ${spanName(data.span)}, each row ${duration(data.step)}`, columns, rows.reverse()));
  }
  byId("numbers").addEventListener("toggle", numbers);

  /** Show an answer of api/history. */
  return function show(answer) {
    data = answer;
    drawn = series(answer);
    const totals = Object.fromEntries(OUTCOMES.map(({ key }) => [key, sum(answer.outcomes[key])]));
    const all = sum(Object.values(totals));
    byId("empty").hidden = all > 0 || Boolean(answer.trouble);
    fill(byId("verdicts-title"), all ? `Verdicts per ${drawn.unit.name}` : "Verdicts");
    byId("figure").classList.toggle("without-chart", !canDraw());
    byId("tiles").hidden = !all;
    tiles(totals, all);
    picture.show(drawn, answer.marks);
    legend(null);
    fill(byId("summary"), summary(totals, all));
    showMarks(byId("marks"), answer.marks);
    if (!canDraw()) byId("numbers").open = true;
    numbers();
  };
}
