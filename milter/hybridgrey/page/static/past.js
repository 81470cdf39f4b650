// Verdicts before the latest ones: looked for on demand, newest first, a second's worth of them with each question.

import { exact } from "./format.js";

const ENOUGH = 20; // found with one press
const LIMIT = "100";

const now = () => Date.now() / 1000;
const once = (verdicts) => [...new Map(verdicts.map((one) => [one.id, one])).values()];

export function past({ ask, host }) {
  // What has been found for a search `q` of a host, back to `reached`; null: to the end.
  let state = null;

  const isOf = (answer) => Boolean(state) && state.q === answer.q && state.host === host();

  /** The verdicts of an answer of api/latest with those found before them, each once, the newest first. */
  function joined(answer) {
    if (!isOf(answer)) state = null;
    return state ? once([...answer.verdicts, ...state.found]).sort((a, b) => b.t - a.t) : answer.verdicts;
  }

  /** Whether there may be more of it. */
  const goesOn = (answer) => answer.days > 0 && !(isOf(answer) && (state.busy || state.reached === null));

  /** How far a search has got, in words. */
  function words(answer) {
    if (!answer.days || !answer.oldest) return "";
    if (!isOf(answer)) return answer.q ? ` Searched back to ${exact(answer.oldest)}.` : "";
    if (state.trouble) return ` Not further back than ${exact(state.reached)}: ${state.trouble}.`;
    if (state.reached === null) return ` That is all of the ${Math.max(1, Math.round(answer.days))} days for which they are kept.`;
    return state.busy ? ` Searching before ${exact(state.reached)} …` : ` Searched back to ${exact(state.reached)}.`;
  }

  /** Look further back until some more are found, or the end is reached; `show` is called as it gets on. */
  async function look(answer, show) {
    if (!isOf(answer)) state = { q: answer.q, host: host(), found: answer.verdicts, reached: answer.oldest ?? now(), busy: false, trouble: "" };
    const mine = state;
    const wanted = mine.found.length + ENOUGH;
    mine.busy = true;
    mine.trouble = "";
    show();
    try {
      while (mine === state && mine.reached !== null && mine.found.length < wanted) {
        const more = await ask("past", { host: mine.host, q: mine.q, before: String(mine.reached), limit: LIMIT });
        if (more.trouble) throw new Error(more.trouble);
        mine.found = once([...mine.found, ...more.verdicts]);
        // Of a moment that has more verdicts than one answer rather some are left out than asked for for ever.
        mine.reached = more.reached === null ? null : Math.min(more.reached, mine.reached - 0.001);
        if (mine === state) show();
      }
    } catch (error) {
      mine.trouble = error.message;
    }
    mine.busy = false;
    if (mine === state) show();
  }

  return { joined, goesOn, words, look };
}
