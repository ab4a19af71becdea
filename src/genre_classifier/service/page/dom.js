// Elements and words that all parts of the page share. Text from files is only ever added as text.

const SVG = "http://www.w3.org/2000/svg";
// Letters that nobody sees, or that turn the text around them. terminal.py escapes the same ones in all other output.
const UNSEEN =
  /[\p{C}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\u{e0100}-\u{e01ef}]/gu;

function escapeLetter(letter) {
  const code = letter.codePointAt(0);
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
}

/** Return a text with every letter visible. */
function escapeText(text) {
  return String(text).replace(UNSEEN, escapeLetter);
}

export function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, escapeText(value));
  }
}

export function setText(element, text) {
  element.textContent = escapeText(text);
}

function fill(element, attributes, children) {
  setAttributes(element, attributes);
  const given = children.filter((child) => child !== null && child !== undefined);
  element.append(...given.map((child) => (child instanceof Node ? child : escapeText(child))));
  return element;
}

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

export function percent(share) {
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** A list of bars: entries of name, share from 0 to 1, and the words at its end. */
export function bars(entries, label) {
  const items = entries.map(({ name, share, words, isBest }) => {
    const bar = el("span", { class: "bar" });
    bar.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
    return el(
      "li",
      { class: isBest ? "best" : null },
      el("span", { class: "bar-name" }, name),
      el("span", { class: "track", "aria-hidden": "true" }, bar),
      el("span", { class: "bar-value" }, words),
    );
  });
  return el("ol", { class: "bars", "aria-label": label }, ...items);
}

/** The first words of a refusal, whatever answered. */
export function reasonOf(answer, status) {
  const problem = answer?.detail?.[0];
  if (typeof problem?.msg !== "string") return `The service answered with status ${status}.`;
  const place = Array.isArray(problem.loc) ? problem.loc.slice(2).join(", ") : "";
  return place ? `${place}: ${problem.msg}` : problem.msg;
}

/** What is known of a prediction that a reader must not miss, or null. */
export function unusualHint(prediction) {
  const names = prediction.unusual_features ?? [];
  if (!prediction.outside_training_range) return null;
  const shown = names.slice(0, 6).join(", ") + (names.length > 6 ? ", …" : "");
  return el(
    "p",
    { class: "notice" },
    el("strong", {}, "Far outside the training data. "),
    `${counted(names.length, "feature")} (${shown}) ${names.length === 1 ? "lies" : "lie"} more than ten standard ` +
      "deviations from the mean of the training rows. The confidence means little here.",
  );
}

/** Genres with their probabilities, the most probable first. */
export function ranked(probabilities) {
  return Object.entries(probabilities).sort((one, other) => other[1] - one[1]);
}

export function genreBars(probabilities, number) {
  const entries = ranked(probabilities)
    .slice(0, number)
    .map(([name, share], place) => ({ name, share, words: percent(share), isBest: place === 0 }));
  return bars(entries, "Genres by confidence");
}
