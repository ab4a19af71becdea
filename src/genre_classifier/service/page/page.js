// The page: takes songs and features from a reader, sends one after the other, shows the answers and the model card.

import { el, genreBars, percent, reasonOf, setText, unusualHint } from "./dom.js";
import { isSynthetic, modelCard } from "./model.js";
import { Song } from "./song.js";

const $ = (id) => document.getElementById(id);
const waiting = [];
let isSending = false;
let model = null;

async function loadModel() {
  const response = await fetch("model").catch(() => null);
  const answer = response && (await response.json().catch(() => null));
  $("problem").hidden = Boolean(response?.ok && answer);
  if (!response?.ok || !answer) {
    const reason = response && `There is no model to ask: ${reasonOf(answer, response.status)}`;
    setText($("problem"), reason || "The service cannot be reached. Is it still running?");
    $("drop").hidden = true;
    $("paste").hidden = true;
    return;
  }
  model = answer;
  const { refused_because: refusal, suffixes, most_bytes: most } = model.songs;
  $("drop").hidden = Boolean(refusal);
  $("no-songs").hidden = !refusal;
  setText($("no-songs"), `Songs cannot be measured for this model: ${refusal}`);
  $("paste").hidden = false;
  $("paste").open ||= Boolean(refusal);
  $("files").accept = ["audio/*", ...suffixes].join(",");
  const kinds = suffixes.map((suffix) => suffix.slice(1));
  const more = kinds.length > 6 ? ` and ${kinds.length - 6} more kinds` : "";
  const size = `up to ${Math.floor(most / 2 ** 20)} MB each`;
  setText($("limits"), `${kinds.slice(0, 6).join(", ")}${more}, ${size}. Songs are deleted once measured.`);
  $("synthetic").hidden = !isSynthetic(model);
  setText($("features-help"), describeFeatures());
  $("model").replaceChildren(modelCard(model));
}

function describeFeatures() {
  const names = model.features;
  const order = names ? `: ${names.slice(0, 3).join(", ")} … ${names.at(-1)}` : " in the order of training";
  return (
    `${model.n_features} numbers${order}. Separate them by commas, spaces or tabs; or paste JSON, ` +
    "or a line of names above a line of numbers."
  );
}

function addSongs(files) {
  if (!model || model.songs.refused_because) return;
  for (const file of files) {
    const song = new Song(file, () => model.songs);
    $("songs").append(song.element);
    waiting.push(song);
  }
  sendSongs();
}

async function sendSongs() {
  if (isSending) return;
  isSending = true;
  while (waiting.length) {
    const song = waiting.shift();
    if (!song.isRemoved) await song.send();
  }
  isSending = false;
}

/** Return the numbers in a text, as a list or by their names; throw an Error that says what is wrong. */
function parseFeatures(text) {
  if (/^\s*[[{]/.test(text)) {
    const value = JSON.parse(text);
    return value.features ?? value;
  }
  const cells = (line) => line.split(/[\s,;]+/).filter(Boolean);
  const lines = text.split("\n").filter((line) => line.trim());
  if (lines.length === 2 && cells(lines[0]).every((cell) => Number.isNaN(Number(cell)))) {
    const [names, values] = [cells(lines[0]), numbers(cells(lines[1]))];
    if (names.length !== values.length) throw new Error(`${names.length} names, but ${values.length} numbers`);
    return Object.fromEntries(names.map((name, place) => [name, values[place]]));
  }
  return numbers(cells(text));
}

function numbers(cells) {
  return cells.map((cell, place) => {
    const value = Number(cell);
    if (!Number.isFinite(value)) throw new Error(`value ${place + 1} is ${cell.slice(0, 40)}; expected a number`);
    return value;
  });
}

async function predictFeatures(event) {
  event.preventDefault();
  const show = (...children) => $("features-answer").replaceChildren(...children);
  const refuse = (words) => show(el("p", { class: "status failed" }, words));
  let features;
  try {
    features = parseFeatures($("features").value);
  } catch (error) {
    refuse(`This cannot be read: ${error.message}`);
    return;
  }
  const body = JSON.stringify({ features, return_probs: true });
  const response = await fetch("predict", { method: "POST", body }).catch(() => null);
  const answer = response && (await response.json().catch(() => null));
  if (!response?.ok || !answer) {
    refuse(response ? reasonOf(answer, response.status) : "The service cannot be reached. Is it still running?");
    return;
  }
  show(
    el("p", { class: "status done" }, `${answer.predicted_genre}, ${percent(answer.confidence)}`),
    genreBars(answer.all_probabilities, Object.keys(answer.all_probabilities).length),
    unusualHint(answer) ?? "",
  );
  noteBundle(answer.bundle);
}

/** Show the model card of another bundle that was put in this one's place. */
function noteBundle(digest) {
  if (digest !== model.bundle) loadModel();
}

function dropAnywhere() {
  let depth = 0;
  const isFiles = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dragging", depth > 0);
  };
  document.addEventListener("dragenter", (event) => isFiles(event) && mark(1));
  document.addEventListener("dragleave", (event) => isFiles(event) && mark(-1));
  document.addEventListener("dragover", (event) => isFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!isFiles(event)) return;
    event.preventDefault();
    mark(-depth);
    addSongs(event.dataTransfer.files);
  });
}

$("files").addEventListener("change", () => {
  addSongs($("files").files);
  $("files").value = ""; // so that the same file can be chosen again
});
$("songs").addEventListener("again", (event) => {
  waiting.push(event.detail);
  sendSongs();
});
$("songs").addEventListener("answered", (event) => noteBundle(event.detail));
$("features-form").addEventListener("submit", predictFeatures);
dropAnywhere();
loadModel();
