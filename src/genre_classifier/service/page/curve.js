// The genres over a song's time: one small plot per genre, and a cursor that a player moves or a reader drags.

import { clock, el, percent, setAttributes, setText, svg } from "./dom.js";

const TICK_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
const KEYS = { ArrowLeft: -5, ArrowRight: 5, ArrowDown: -5, ArrowUp: 5, PageDown: -30, PageUp: 30 };

/** Where a point stands: the middle of its window; the first and the last reach to their ends. */
function linePoints(points, genre) {
  const line = [];
  points.forEach((point, number) => {
    const share = point.probabilities[genre];
    const before = points[number - 1];
    const after = points[number + 1];
    const startsHere = !before || before.end < point.start; // a silent part lies between
    const endsHere = !after || point.end < after.start;
    if (startsHere) line.push([point.start, share, true]);
    line.push([(point.start + point.end) / 2, share, false]);
    if (endsHere) line.push([point.end, share, false]);
  });
  return line;
}

function plot(points, genre, duration) {
  let area = "";
  let line = "";
  let last = 0;
  for (const [time, share, isFirst] of linePoints(points, genre)) {
    const x = (1000 * time) / duration;
    const y = 100 - 100 * share;
    if (isFirst && area) area += `L${last} 100Z`;
    area += isFirst ? `M${x} 100L${x} ${y}` : `L${x} ${y}`;
    line += `${isFirst ? "M" : "L"}${x} ${y}`;
    last = x;
  }
  return svg(
    "svg",
    { class: "plot", viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "plot-area", d: `${area}L${last} 100Z` }),
    svg("path", { class: "plot-line", d: line }),
  );
}

function axis(duration) {
  const step = TICK_STEPS.find((seconds) => duration / seconds <= 6) ?? 1200;
  const element = el("div", { class: "axis", "aria-hidden": "true" });
  for (let time = 0; time <= duration; time += step) {
    const tick = el("span", {}, clock(time));
    tick.style.left = `${(100 * time) / duration}%`;
    element.append(tick);
  }
  return element;
}

function nearest(points, time) {
  const distance = (point) => Math.abs((point.start + point.end) / 2 - time);
  return points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
}

/**
 * Draw the plots of some genres. `seek` is called with the second that a reader chose.
 * The returned `element` goes into the page; `show` moves the cursor.
 */
export function curve(points, duration, genres, seek) {
  const grid = el("div", { class: "curve" });
  const values = genres.map((genre, number) => {
    const value = el("span", { class: "curve-value", "aria-hidden": "true" });
    for (const part of [el("span", { class: "curve-name" }, genre), plot(points, genre, duration), value]) {
      part.style.setProperty("--row", number + 1);
      grid.append(part);
    }
    return value;
  });
  const cursor = el("div", { class: "cursor" });
  const slider = el(
    "div",
    {
      class: "slider",
      role: "slider",
      tabindex: 0,
      "aria-label": "Position in the song",
      "aria-valuemin": 0,
      "aria-valuemax": Math.round(duration),
    },
    cursor,
  );
  const place = el("span", { class: "curve-now soft", "aria-hidden": "true" });
  grid.style.setProperty("--rows", genres.length);
  grid.append(slider, axis(duration), place);
  let now = 0;

  function show(time) {
    now = Math.max(0, Math.min(duration, time));
    const point = nearest(points, now);
    cursor.style.left = `${(100 * now) / duration}%`;
    setText(place, `at ${clock(now)}`);
    values.forEach((value, number) => {
      setText(value, percent(point.probabilities[genres[number]]));
    });
    const best = genres.reduce((one, other) => (point.probabilities[other] > point.probabilities[one] ? other : one));
    const words = `${clock(now)}, ${best} ${percent(point.probabilities[best])}`;
    setAttributes(slider, { "aria-valuenow": Math.round(now), "aria-valuetext": words });
  }

  function choose(time) {
    show(time);
    seek(now);
  }

  function chooseAt(event) {
    const box = slider.getBoundingClientRect();
    choose((duration * (event.clientX - box.left)) / box.width);
  }

  slider.addEventListener("pointerdown", (event) => {
    slider.setPointerCapture(event.pointerId);
    chooseAt(event);
  });
  slider.addEventListener("pointermove", (event) => {
    if (slider.hasPointerCapture(event.pointerId)) chooseAt(event);
  });
  slider.addEventListener("keydown", (event) => {
    const place = { Home: 0, End: duration }[event.key] ?? now + (KEYS[event.key] ?? NaN);
    if (Number.isNaN(place)) return;
    event.preventDefault();
    choose(place);
  });
  show(0);
  return { element: grid, show };
}
