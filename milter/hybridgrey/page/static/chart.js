// The stacked chart of verdicts by time, drawn by uPlot. It is a picture of what the table below it says;
// the arrow keys move its cursor, and what is under it is told as the value of a slider.

import { date, hourMinute, monthName, rate, weekday, year } from "./format.js";
import { ROOM, marksPlugin } from "./marks.js";

const HEIGHT = 300;
const LOW = 250;
const DAY = 86400;
const END = 28; // CSS pixels beyond the plot: half of a label of the last moment

/** Whether the library has been installed; without it there are tables only. */
export const canDraw = () => typeof globalThis.uPlot === "function";

/** The page's colours of now, light or dark. */
function look(element, outcomes) {
  const style = getComputedStyle(element);
  const colour = (name) => style.getPropertyValue(name).trim();
  return {
    font: style.fontFamily,
    text: colour("--quiet-text"),
    grid: colour("--grid"),
    surface: colour("--surface"),
    mark: colour("--mark"),
    ...Object.fromEntries(outcomes.map(({ key }) => [key, colour(`--${key}`)])),
  };
}

/** Each outcome's height on top of those before it, and the last value again at the end of its step. */
function stacked(data, outcomes) {
  const below = new Array(data.times.length).fill(0);
  const tops = outcomes.map(({ key }) => data.rates[key].map((value, at) => (below[at] += value)));
  const end = data.times.at(-1) + data.step;
  return [[...data.times, end], ...tops.reverse().map((row) => [...row, row.at(-1)])];
}

function ticks(splits, step) {
  return splits.map((t, at) => {
    const when = new Date(t * 1000);
    const first = at === 0;
    if (step < DAY) {
      const midnight = when.getUTCHours() === 0 && when.getUTCMinutes() === 0;
      return midnight ? `${hourMinute(t)}\n${date(t)}` : hourMinute(t);
    }
    if (step < 2 * DAY) return weekday(t);
    if (step < 25 * DAY) return date(t);
    return when.getUTCMonth() === 0 || first ? `${monthName(t)}\n${year(t)}` : monthName(t);
  });
}

/** A chart in `element`; `onMoment(index or null)` hears of the cursor, `describe(index)` says what is there. */
export function chart(element, outcomes, { onMoment, describe }) {
  let plot = null;
  let shown = null;
  let marks = [];
  let colours = null;

  const width = () => Math.max(240, Math.floor(element.clientWidth));
  const height = () => (element.clientWidth < 500 ? LOW : HEIGHT);

  function build() {
    plot?.destroy();
    colours = look(element, outcomes);
    const axis = { stroke: colours.text, font: `12px ${colours.font}`, grid: { stroke: colours.grid, width: 1 }, ticks: { stroke: colours.grid, width: 1, size: 4 } };
    const options = {
      width: width(),
      height: height(),
      padding: [ROOM, END, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      tzDate: (t) => globalThis.uPlot.tzDate(new Date(t * 1000), "Etc/UTC"),
      scales: {
        x: { time: true, range: () => [shown.times[0], shown.times.at(-1) + shown.step] },
        y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        { ...axis, space: 64, size: 42, grid: { show: false }, values: (_plot, splits, _axis, _space, step) => ticks(splits, step) },
        { ...axis, label: `per ${shown.unit.name}`, labelSize: 18, labelFont: axis.font, size: (_plot, values) => 16 + 7 * Math.max(2, ...(values ?? []).map((one) => String(one).length)), values: (_plot, splits) => splits.map(rate) },
      ],
      series: [
        {},
        ...[...outcomes].reverse().map(({ key, name }) => ({
          label: name,
          fill: colours[key],
          stroke: colours.surface,
          width: 1,
          points: { show: false },
          paths: globalThis.uPlot.paths.stepped({ align: 1 }),
        })),
      ],
      plugins: [marksPlugin(() => marks, () => colours)],
      hooks: { setCursor: [(self) => onMoment(at(self.cursor.idx))] },
    };
    plot = new globalThis.uPlot(options, stacked(shown, outcomes), element);
  }

  const at = (index) => (index === null || index === undefined ? null : Math.min(index, shown.times.length - 1));

  function move(index) {
    if (!shown) return;
    const to = Math.max(0, Math.min(shown.times.length - 1, index));
    element.setAttribute("aria-valuenow", String(to));
    element.setAttribute("aria-valuetext", describe(to));
    // In the middle of the step, where the pointer would be.
    plot?.setCursor({ left: plot.valToPos(shown.times[to] + shown.step / 2, "x"), top: 0 });
    onMoment(to);
  }

  const KEYS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
  element.addEventListener("keydown", (event) => {
    if (!(event.key in KEYS) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move(Number(element.getAttribute("aria-valuenow")) + KEYS[event.key]);
  });
  element.addEventListener("blur", () => {
    plot?.setCursor({ left: -10, top: -10 });
    onMoment(null);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown && canDraw() && build());
  new ResizeObserver(() => plot && (plot.width !== width() || plot.height !== height()) && plot.setSize({ width: width(), height: height() })).observe(element);

  /** Draw `data`: {span, step, times, unit, rates in it by outcome} and its marks, [{t, kind, text, host}]. */
  function show(data, theirs) {
    const alike = shown && shown.span === data.span && shown.unit === data.unit;
    shown = data;
    marks = theirs;
    for (const [name, value] of Object.entries({ tabindex: "0", role: "slider", "aria-label": "Moment in the chart", "aria-valuemin": "0" })) {
      element.setAttribute(name, value);
    }
    element.setAttribute("aria-valuemax", String(data.times.length - 1));
    if (!alike || !element.hasAttribute("aria-valuenow")) {
      element.setAttribute("aria-valuenow", String(data.times.length - 1));
      element.setAttribute("aria-valuetext", describe(data.times.length - 1));
    }
    if (!canDraw()) return;
    if (plot && alike) plot.setData(stacked(data, outcomes));
    else build();
  }

  return { show };
}
