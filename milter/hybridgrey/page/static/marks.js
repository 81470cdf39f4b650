// Marks: the notable moments, as numbers on the chart and as a list below it.

import { fill, foreign, make, table } from "./dom.js";
import { finder } from "./find.js";
import { dated, exact, plural, timeElement } from "./format.js";

const NAMES = {
  start: "start",
  reload: "reload",
  mode: "mode",
  suspended: "list suspended",
  restored: "list back",
  store_down: "store down",
  store_back: "store back",
};
const SHOWN = 5;
const NEAR = 20; // CSS pixels: closer ones share a number, and farther ones too where there are many
const ROW = 21; // CSS pixels

/** The room that marks need above a chart, in CSS pixels. */
export const ROOM = 26 + ROW;

export const markName = (mark) => NAMES[mark.kind] ?? String(mark.kind);

/** What is written beside marks on the chart. */
function label(marks) {
  const names = [...new Set(marks.map((mark) => (mark.kind === "mode" && mark.text ? mark.text : markName(mark))))];
  return names.length > 2 ? plural(marks.length, "mark") : names.join(", ");
}

/** Marks in order, those less than `apart` CSS pixels from each other together; `at` gives that of a moment. */
function clusters(marks, at, apart) {
  const found = [];
  marks.forEach((mark, index) => {
    const x = at(mark.t);
    const near = found.at(-1);
    if (near && x - near.x < apart) {
      near.last = index + 1;
      near.marks.push(mark);
    } else found.push({ x, first: index + 1, last: index + 1, marks: [mark] });
  });
  return found;
}

/**
 * Where each number and name goes: in the lower of two rows where nothing of the row is, the name left of its
 * number at the chart's end, and left out where there is no room. Adds `badge`, `half`, `text`, `from`, `row`.
 * False when there is no room even for the numbers.
 */
function place(found, measure, left, right) {
  const taken = [-Infinity, -Infinity];
  for (const one of found) {
    one.badge = one.first === one.last ? `${one.first}` : `${one.first}–${one.last}`;
    one.half = Math.max(9, measure(one.badge) / 2 + 5);
    one.centre = Math.min(Math.max(one.x, left + one.half), right - one.half);
    const text = label(one.marks);
    const wide = measure(text) + 8;
    const after = one.centre + one.half + 4;
    const before = one.centre - one.half - wide + 4;
    const fits = after + wide <= right;
    const start = fits ? one.centre - one.half : before;
    one.row = taken.findIndex((end) => end < start);
    if (one.row >= 0) Object.assign(one, { text, wide, from: fits ? after : before });
    else one.row = taken.findIndex((end) => end < one.centre - one.half);
    if (one.row < 0) return false;
    taken[one.row] = (one.text && fits ? after + wide : one.centre + one.half) + 2;
  }
  return true;
}

/** A uPlot plug-in that draws `marks()` in the room above the plot, with the colours of `look()`. */
export function marksPlugin(marks, look) {
  function draw(plot) {
    const { ctx } = plot;
    const colours = look();
    const scale = plot.bbox.width / plot.over.clientWidth || 1;
    const [left, top] = [plot.bbox.left / scale, plot.bbox.top / scale];
    const [right, bottom] = [left + plot.bbox.width / scale, top + plot.bbox.height / scale];
    ctx.save();
    ctx.scale(scale, scale);
    ctx.font = `12px ${colours.font}`;
    ctx.textBaseline = "middle";
    const inside = ({ x }) => x >= left - 1 && x <= right + 1;
    const measure = (text) => ctx.measureText(text).width;
    let found = [];
    for (let apart = NEAR; apart < right - left; apart *= 1.5) {
      found = clusters(marks(), (t) => plot.valToPos(t, "x") + left, apart).filter(inside);
      if (place(found, measure, left, right)) break;
    }
    const height = (one) => top - 13 - one.row * ROW;
    ctx.strokeStyle = colours.mark;
    ctx.setLineDash([4, 3]);
    for (const one of found) {
      ctx.beginPath();
      ctx.moveTo(Math.round(one.x) + 0.5, height(one));
      ctx.lineTo(Math.round(one.x) + 0.5, bottom);
      ctx.stroke();
    }
    for (const one of found) {
      const y = height(one);
      if (one.text) {
        ctx.fillStyle = colours.surface; // so that no line goes through the name
        ctx.fillRect(one.from - 2, y - 8, one.wide - 4, 16);
        ctx.fillStyle = colours.text;
        ctx.textAlign = "left";
        ctx.fillText(one.text, one.from, y + 1);
      }
      ctx.fillStyle = colours.mark;
      ctx.beginPath();
      ctx.roundRect(one.centre - one.half, y - 9, 2 * one.half, 18, 9);
      ctx.fill();
      ctx.fillStyle = colours.surface;
      ctx.textAlign = "center";
      ctx.fillText(one.badge, one.centre, y + 1);
    }
    ctx.restore();
  }

  return { hooks: { draw } };
}

/** The marks as a list, the newest first: a few at once, all on request. */
export function showMarks(element, marks) {
  if (!marks.length) return fill(element);
  const rows = marks.map((mark, index) => ({ mark, number: index + 1 })).reverse();
  const item = ({ mark, number }) =>
    make(
      "li",
      {},
      make("span", { class: "badge" }, String(number)),
      " ",
      timeElement(mark.t, dated(mark.t)),
      " ",
      make("strong", {}, markName(mark)),
      " ",
      finder("host", mark.host),
      mark.text ? " – " : null,
      mark.text ? foreign(mark.text) : null,
    );
  const open = element.querySelector("details")?.open ?? false;
  const rest = rows.slice(SHOWN);
  fill(
    element,
    make("h3", {}, "Marks"),
    make("ol", { class: "marks", reversed: true, start: String(marks.length) }, ...rows.slice(0, SHOWN).map(item)),
    rest.length
      ? make(
          "details",
          { open },
          make("summary", {}, `${plural(rest.length, "older mark")}`),
          table(
            "Older marks",
            [{ title: "No.", number: true }, { title: "Time (UTC)" }, { title: "What" }, { title: "Host" }, { title: "Details", wide: true }],
            rest.map(({ mark, number }) => [String(number), timeElement(mark.t, exact(mark.t)), markName(mark), finder("host", mark.host), foreign(mark.text)]),
          ),
        )
      : null,
  );
}
