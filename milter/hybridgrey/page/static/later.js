// What was spam later of the mail that was let in early, by mail logs and by the scanner: in words, and as a
// column of the table of reasons.

import { foreign, make } from "./dom.js";
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

/** The column of the table, as a list: none where nothing is known. `of` gives the cell of a reason. */
export function laterColumn({ later }) {
  const sources = [["log", "log"], ["scanner", "scanner"]].filter(([source]) => later[source].told);
  if (!sources.length) return [];
  const of = (reason) => {
    const known = sources.filter(([source]) => later.reasons[reason]?.[source].told);
    const said = known.map(([source, name]) => {
      const { told, spam } = later.reasons[reason][source];
      return `${count(spam)} of ${count(told)}${sources.length > 1 ? ` (${name})` : ""}`;
    });
    return said.join(", ") || "–";
  };
  return [{ title: "Spam later", number: true, of }];
}
