// Numbers, times and names in words.

/** What recipients got, from the bottom of the stack to its top. */
export const OUTCOMES = [
  { key: "accept", name: "accepted" },
  { key: "delay", name: "greylisted" },
  { key: "reject", name: "rejected" },
  { key: "tempfail", name: "deferred" },
];
export const outcomeName = (key) => OUTCOMES.find((one) => one.key === key)?.name ?? String(key);

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
export const count = (number) => whole.format(number);
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** A rate, with as many digits as it takes to tell small ones apart. */
export const rate = (number) => short.format(number);

/** A part of a whole in percent; a part that is there is never "0 %". */
export function share(part, all) {
  if (!all) return "–";
  const percent = (100 * part) / all;
  if (part && percent < 0.1) return "<\u00a00.1\u00a0%";
  return `${percent.toFixed(percent < 10 && part ? 1 : 0)}\u00a0%`;
}

const PER = [
  { name: "second", seconds: 1 },
  { name: "minute", seconds: 60 },
  { name: "hour", seconds: 3600 },
  { name: "day", seconds: 86400 },
];

/** The shortest unit of time in which there is at least one at a rate of `usual` a second: that of a view. */
export const unitOf = (usual) => PER.find(({ seconds }) => usual * seconds > 1 - 1e-6) ?? PER.at(-1);

const UNITS = [
  [86400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];

/** Seconds as two units at most, as "5 min 12 s". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  let left = Math.round(seconds);
  const parts = [];
  for (const [size, unit] of UNITS) {
    if (left >= size && parts.length < 2) {
      parts.push(`${Math.floor(left / size)}\u00a0${unit}`);
      left %= size;
    } else if (parts.length) break;
  }
  return parts.join(" ") || "0\u00a0s";
}

/** The median of a histogram of delays, or the bound that is all that is known of it. */
export function median({ median: seconds, median_exact: exact, buckets }) {
  if (seconds === null || exact) return duration(seconds);
  return `${seconds === buckets.at(-1).from ? ">" : "≤"}\u00a0${duration(seconds)}`;
}

const SPANS = { hour: "the last hour", day: "the last 24 hours", week: "the last 7 days", month: "the last 31 days", year: "the last 366 days" };
export const spanName = (span) => SPANS[span] ?? span;

const clocks = new Map();
function clock(options) {
  const key = JSON.stringify(options);
  if (!clocks.has(key)) clocks.set(key, new Intl.DateTimeFormat("en-GB", options));
  return clocks.get(key);
}
const TIME = { hour: "2-digit", minute: "2-digit" };
const DATE = { day: "numeric", month: "short" };

// All times are UTC, as in the log: hosts and readers may be anywhere, and days of the history are those of UTC.
const on = (seconds, options) => clock({ ...options, timeZone: "UTC" }).format(new Date(seconds * 1000));
export const hourMinute = (seconds) => on(seconds, TIME);
export const withSeconds = (seconds) => on(seconds, { ...TIME, second: "2-digit" });
export const date = (seconds) => on(seconds, DATE);
export const monthName = (seconds) => on(seconds, { month: "short" });
export const year = (seconds) => on(seconds, { year: "numeric" });
export const weekday = (seconds) => on(seconds, { weekday: "short", day: "numeric" });

/** A moment as short as it is clear in a span of time. */
export function moment(seconds, span) {
  if (span === "hour") return hourMinute(seconds);
  if (span === "year") return `${date(seconds)} ${year(seconds)}`;
  return `${date(seconds)} ${hourMinute(seconds)}`;
}

/** The date of a moment as far as it is not that of today, with a space at its end. */
function unlessToday(seconds) {
  const now = Date.now() / 1000;
  if (year(now) !== year(seconds)) return `${date(seconds)} ${year(seconds)} `;
  return date(now) === date(seconds) ? "" : `${date(seconds)} `;
}
export const dated = (seconds) => unlessToday(seconds) + hourMinute(seconds);
export const exact = (seconds) => unlessToday(seconds) + withSeconds(seconds);

/** An element that says a moment, the whole of it for machines. */
export function timeElement(seconds, text) {
  const element = document.createElement("time");
  const when = new Date(seconds * 1000);
  if (!Number.isNaN(when.getTime())) {
    element.dateTime = when.toISOString();
    element.title = when.toISOString();
  }
  element.textContent = text;
  return element;
}
