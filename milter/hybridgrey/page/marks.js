// Marks: the notable moments, as numbers on the chart and as a list below it.

import { fill, foreign, make, table } from "./dom.js";
import { exact, moment, plural, timeElement } from "./format.js";

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
const NEAR = 20; // CSS pixels: closer ones share a number

export const markName = (mark) => NAMES[mark.kind] ?? String(mark.kind);

/** What is written beside a mark on the chart. */
const label = (mark) => (mark.kind === "mode" && mark.text ? mark.text : markName(mark));

/** Marks in order, those near each other together: [{x, first, last, marks}]; `at` gives the CSS pixel. */
function clusters(marks, at) {
  const found = [];
  marks.forEach((mark, index) => {
    const x = at(mark.t);
    const near = found.at(-1);
    if (near && x - near.x < NEAR) {
      near.last = index + 1;
      near.marks.push(mark);
    } else found.push({ x, first: index + 1, last: index + 1, marks: [mark] });
  });
  return found;
}

/** A uPlot plug-in that draws `marks()` in the room above the plot, with the colours of `look()`. */
export function marksPlugin(marks, look) {
  function draw(plot) {
    const { ctx } = plot;
    const scale = window.devicePixelRatio || 1;
    const { left, top, width, height } = plot.bbox;
    const colours = look();
    const inside = marks().filter((mark) => mark.t >= plot.scales.x.min && mark.t <= plot.scales.x.max);
    const numbered = inside.map((mark) => ({ ...mark }));
    const found = clusters(numbered, (t) => plot.valToPos(t, "x", true) / scale);
    const offset = marks().indexOf(inside[0]);
    ctx.save();
    ctx.font = `${12 * scale}px ${colours.font}`;
    ctx.textBaseline = "middle";
    found.forEach((one, at) => {
      const x = Math.round(one.x * scale) + 0.5;
      const y = top - 15 * scale;
      ctx.strokeStyle = colours.mark;
      ctx.lineWidth = scale;
      ctx.setLineDash([4 * scale, 3 * scale]);
      ctx.beginPath();
      ctx.moveTo(x, y + 8 * scale);
      ctx.lineTo(x, top + height);
      ctx.stroke();
      ctx.setLineDash([]);
      const numbers = one.first === one.last ? `${one.first + offset}` : `${one.first + offset}–${one.last + offset}`;
      const half = Math.max(9 * scale, ctx.measureText(numbers).width / 2 + 5 * scale);
      const centre = Math.min(Math.max(x, left + half), left + width - half);
      ctx.fillStyle = colours.mark;
      ctx.beginPath();
      ctx.roundRect(centre - half, y - 9 * scale, 2 * half, 18 * scale, 9 * scale);
      ctx.fill();
      ctx.fillStyle = colours.surface;
      ctx.textAlign = "center";
      ctx.fillText(numbers, centre, y + scale);
      name(ctx, one, { centre, half, y, scale, colours, right: left + width, before: found[at - 1], after: found[at + 1] });
    });
    ctx.restore();
  }

  // The name goes to the right of its number, or to the left at the chart's end; not where another is.
  function name(ctx, one, { centre, half, y, scale, colours, right, before, after }) {
    const text = one.marks.length === 1 ? label(one.marks[0]) : plural(one.marks.length, "mark");
    const wide = ctx.measureText(text).width + 6 * scale;
    const room = (after ? after.x * scale - 14 * scale : right) - (centre + half);
    ctx.fillStyle = colours.text;
    if (wide <= room) {
      ctx.textAlign = "left";
      ctx.fillText(text, centre + half + 4 * scale, y + scale);
    } else if (!after && (!before || before.right + wide < centre - half)) {
      ctx.textAlign = "right";
      ctx.fillText(text, centre - half - 4 * scale, y + scale);
    }
    one.right = centre + half + (wide <= room ? wide : 0);
  }

  return { hooks: { draw } };
}

/** The marks as a list, the newest first: a few at once, all on request. */
export function showMarks(element, marks, span) {
  if (!marks.length) return fill(element);
  const rows = marks.map((mark, index) => ({ mark, number: index + 1 })).reverse();
  const item = ({ mark, number }) =>
    make(
      "li",
      {},
      make("span", { class: "badge" }, String(number)),
      " ",
      timeElement(mark.t, moment(mark.t, span)),
      " ",
      make("strong", {}, markName(mark)),
      " ",
      foreign(mark.host, "quieter"),
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
            [{ title: "No.", number: true }, { title: "Time" }, { title: "What" }, { title: "Host" }, { title: "Details", wide: true }],
            rest.map(({ mark, number }) => [String(number), timeElement(mark.t, exact(mark.t)), markName(mark), foreign(mark.host), foreign(mark.text)]),
          ),
        )
      : null,
  );
}
