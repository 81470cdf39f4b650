// What was spam later of the mail that was let in early, by mail logs and by the scanner: in words, and as a
// table by reason.

import { foreign, make, table } from "./dom.js";
import { finder } from "./find.js";
import { count, dated, plural } from "./format.js";

const MOST_HOSTS = 3;

const were = (number) => (number === 1 ? "was" : "were");

/** Up to when mail logs have been read; each host's where they differ. */
function readUntil(logs) {
  if (!logs.length) return [];
  const times = [...new Set(logs.map(({ until }) => dated(until)))];
  if (times.length === 1) return [" (read until ", times[0], ")"];
  const shown = logs.slice(0, MOST_HOSTS).flatMap(({ host, until }, at) => [at ? ", " : "", dated(until), " for ", foreign(host)]);
  return [" (read until ", ...shown, logs.length > MOST_HOSTS ? ", …)" : ")"];
}

function byLog({ early, log }, logs) {
  if (!log.told) return [];
  const read = readUntil(logs);
  if (log.told >= early) return [`Of ${count(early)} let in early, ${count(log.spam)} ${were(log.spam)} spam later by the mail log`, ...read, ". "];
  return [`Of ${count(early)} let in early, the mail log tells of ${count(log.told)}`, ...read, `: ${count(log.spam)} of them ${were(log.spam)} spam later. `];
}

function byScanner({ early, scanner }) {
  if (!scanner.told) return [];
  return [`The scanner has seen ${count(scanner.told)} of ${count(early)} let in early, and took ${count(scanner.spam)} for spam.`];
}

/** Sentences, as children of an element; none where nothing was let in early. */
export function laterWords({ later, logs, unkept }) {
  if (!later.early) return [];
  const said = [...byLog(later, logs), ...byScanner(later)];
  if (said.length) return said;
  const unknown = `Whether any of the ${plural(later.early, "mail")} let in early ${were(later.early)} spam later is not known`;
  if (unkept) return [`${unknown}, and no mail log can tell: ${unkept}. A scanner of messages ([content]) would.`];
  const command = make("code", {}, "hybridgrey import spam /var/log/mail.log");
  return [unknown, ...(logs.length ? [": the mail log", ...readUntil(logs), " has none of them"] : []), ". ", command, " tells it, by what a spam filter behind this one has logged."];
}

const SOURCES = [
  ["log", "Mail log: spam"],
  ["scanner", "Scanner: spam"],
];

/** A table by reason, as a list: none where nothing is known. */
export function laterTable({ later, thanks }) {
  const known = SOURCES.filter(([source]) => later[source].told);
  if (!known.length) return [];
  const columns = [{ title: "Let in early, because", wide: true }, { title: "Mails", number: true }, ...known.map(([, title]) => ({ title, number: true }))];
  const rows = Object.entries(later.reasons)
    .sort(([, one], [, other]) => other.early - one.early)
    .map(([reason, row]) => [
      finder("reason", reason, thanks.find((one) => one.reason === reason)?.why ?? reason),
      count(row.early),
      ...known.map(([source]) => (row[source].told ? `${count(row[source].spam)} of ${count(row[source].told)}` : "–")),
    ]);
  return [table("What was spam later of mail let in early", columns, rows)];
}
