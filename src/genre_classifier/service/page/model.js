// The model card. A bundle may be old or come from anywhere, so each part of it may be missing or of another kind.

import { bars, counted, el, isNumber, percent, svg } from "./dom.js";

const SIDES = { train: "training", val: "validation", test: "test" };
const HEADLINES = [
  ["accuracy", "Accuracy"],
  ["f1", "F1, weighted"],
  ["f1_macro", "F1, mean of genres"],
  ["top3", "Among the first three"],
];
const MANY_GENRES = 12;

const isText = (value) => typeof value === "string" && value !== "";
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const asObject = (value) => (isObject(value) ? value : {});
const textOr = (value, otherwise) => (isText(value) ? value : otherwise);
const sideName = (side) => (Object.hasOwn(SIDES, side) ? SIDES[side] : textOr(side, "held-out"));
const asList = (value) => (Array.isArray(value) ? value : []);

export function modelCard(model) {
  const evaluation = asObject(model.evaluation);
  const metrics = asObject(model.metrics);
  const side = isText(evaluation.split) ? evaluation.split : ["test", "val"].find((one) => isObject(metrics[one]));
  const parts = [
    results(metrics, asObject(metrics[side]), evaluation, side),
    perGenre(model.genres, evaluation),
    calibration(model, asObject(metrics[side]), evaluation),
    confusion(model.genres, evaluation, side),
    facts(model),
    checklist(model.production_checklist),
  ];
  const length = model.genres.length > MANY_GENRES ? "model long" : "model";
  return el("div", { class: length }, ...parts.filter(Boolean));
}

function part(title, ...children) {
  return el("section", { class: "card" }, el("h3", {}, title), ...children);
}

function halfPart(title, ...children) {
  return el("section", { class: "card half" }, el("h3", {}, title), ...children);
}

export function isSynthetic(model) {
  return Boolean(asObject(model.metrics).synthetic_data || asObject(model.data).synthetic);
}

function range(ends) {
  const [low, high] = asList(ends);
  return isNumber(low) && isNumber(high) ? `${percent(low)} to ${percent(high)}` : null;
}

function results(metrics, ofSide, evaluation, side) {
  const intervals = asObject(evaluation.intervals);
  const numbers = HEADLINES.filter(([name]) => isNumber(ofSide[name])).map(([name, words]) =>
    el(
      "div",
      { class: "number" },
      el("dt", {}, words),
      el("dd", {}, el("strong", {}, percent(ofSide[name])), el("span", { class: "soft" }, range(intervals[name]) ?? "")),
    ),
  );
  const others = Object.entries(metrics).filter(([, value]) => isNumber(value));
  if (!numbers.length && !others.length) return part("Results", missing("results on held-out rows"));
  const rest = others.map(([name, value]) =>
    el("div", { class: "number" }, el("dt", {}, name), el("dd", {}, el("strong", {}, String(value)))),
  );
  const rows = isNumber(evaluation.rows) ? `${counted(evaluation.rows, `${sideName(side)} row`)}. ` : "";
  const drawn = isNumber(intervals.units)
    ? `95 % intervals: ${textOr(intervals.method, "bootstrap")}, ${counted(intervals.units, textOr(intervals.unit, "row"))} resampled.`
    : "";
  const note = asObject(metrics.held_out_model).note;
  const held = isText(note) ? ` Note: ${note}.` : "";
  const below = rows + drawn + held;
  return part(
    numbers.length ? `Results on ${sideName(side)} rows` : "Results",
    el("dl", { class: "numbers" }, ...numbers, ...rest),
    below ? el("p", { class: "soft" }, below) : null,
    folds(metrics.cross_validation),
  );
}

function folds(found) {
  const accuracy = asObject(asObject(asObject(found).test).accuracy);
  if (!isNumber(accuracy.mean) || !isNumber(found.folds)) return null;
  const spread = isNumber(accuracy.deviation) ? `, standard deviation ${percent(accuracy.deviation)}` : "";
  return el("p", {}, `Cross-validation, ${counted(found.folds, "fold")}: accuracy ${percent(accuracy.mean)}${spread}.`);
}

function missing(what) {
  return el("p", { class: "soft" }, `This bundle does not record ${what}.`);
}

function countsOf(genres, evaluation) {
  const counts = asList(evaluation.confusion);
  const isSquare = counts.length === genres.length && counts.every((row) => asList(row).length === genres.length);
  return isSquare && counts.flat().every(isNumber) ? counts : null;
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

function perGenre(genres, evaluation) {
  const scores = asObject(evaluation.f1_per_genre);
  const counts = countsOf(genres, evaluation);
  const known = genres.filter((genre) => isNumber(scores[genre]));
  if (!known.length) return null;
  const entries = known.map((name) => ({ name, share: scores[name], words: percent(scores[name]) }));
  const least = counts && Math.min(...counts.map(sum));
  const rows = counts ? ` Each genre has at least ${counted(least, "row")}.` : "";
  return halfPart("F1 of each genre", el("p", { class: "soft" }, `Precision and recall in one number.${rows}`), bars(entries, "F1"));
}

function confusion(genres, evaluation, side) {
  const counts = countsOf(genres, evaluation);
  if (!counts) return part("Confusion", missing("which genres it confuses"));
  const head = genres.map((genre) => el("th", { scope: "col" }, el("span", {}, genre)));
  const rows = counts.map((row, index) => {
    const total = sum(row);
    const cells = row.map((count, column) => {
      const share = total ? count / total : 0;
      const cell = el("td", { class: index === column ? "right" : null }, count ? String(count) : "·");
      cell.style.setProperty("--share", share.toFixed(3));
      return cell;
    });
    return el("tr", {}, el("th", { scope: "row" }, genres[index]), ...cells);
  });
  const caption = `Rows: the true genre. Columns: the model's answer. Counts of ${sideName(side)} rows.`;
  const table = el(
    "table",
    { class: genres.length > MANY_GENRES ? "confusion many" : "confusion" },
    el("caption", { class: "soft" }, caption),
    el("thead", {}, el("tr", {}, el("td", {}), ...head)),
    el("tbody", {}, ...rows),
  );
  return part("Confusion", el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Confusion" }, table));
}

function calibration(model, ofSide, evaluation) {
  const bins = asList(evaluation.reliability).filter((bin) => isNumber(bin?.[2]) && isNumber(bin[3]) && isNumber(bin[4]));
  if (!isNumber(ofSide.ece) && !bins.length) return null;
  const interval = range(asObject(evaluation.intervals).ece);
  const error = isNumber(ofSide.ece)
    ? `On average its confidence is ${percent(ofSide.ece)} away from how often it is right` +
      `${interval ? ` (${interval})` : ""}. This is the expected calibration error.`
    : "";
  const found = asObject(model.calibration);
  const there = [found.ece_before, found.ece_after].every(isNumber)
    ? ` There the error went from ${percent(found.ece_before)} to ${percent(found.ece_after)}.`
    : "";
  const temperature = isNumber(found.temperature)
    ? ` Its weights hold a temperature of ${found.temperature.toFixed(2)}, fitted on validation rows.${there}`
    : " No temperature was fitted.";
  return halfPart("Calibration", bins.length ? reliability(bins) : null, el("p", {}, error + temperature));
}

function reliability(bins) {
  const most = Math.max(...bins.map((bin) => bin[2]));
  const place = (share) => 20 + 200 * share;
  const height = (share) => 220 - 200 * share;
  const line = svg("path", { class: "diagonal", d: `M${place(0)} ${height(0)}L${place(1)} ${height(1)}` });
  const ticks = [0, 0.5, 1].flatMap((share) => [
    svg("text", { x: place(share), y: 238, "text-anchor": "middle" }, `${100 * share}`),
    svg("text", { x: 14, y: height(share) + 4, "text-anchor": "end" }, `${100 * share}`),
  ]);
  const dots = bins.map(([, , rows, confidence, accuracy]) =>
    svg("circle", { cx: place(confidence), cy: height(accuracy), r: 3 + 6 * Math.sqrt(rows / most) }),
  );
  const words = bins.map(
    ([, , rows, confidence, accuracy]) => `${rows} rows: ${percent(confidence)} sure, ${percent(accuracy)} right`,
  );
  const drawing = svg(
    "svg",
    { class: "reliability", viewBox: "-12 8 250 252", role: "img", "aria-label": `Reliability. ${words.join("; ")}` },
    svg("rect", { x: 20, y: 20, width: 200, height: 200 }),
    line,
    ...dots,
    ...ticks,
    svg("text", { x: 120, y: 256, "text-anchor": "middle" }, "confidence, %"),
    svg("text", { x: 24, y: 16 }, "right, %"),
  );
  return el(
    "figure",
    {},
    drawing,
    el("figcaption", { class: "soft" }, "A model that knows how sure to be has its dots on the line. Larger dots are more rows."),
  );
}

function rowsInWords(data) {
  const sides = Object.entries(asObject(data.rows_by_split)).filter(([, rows]) => isNumber(rows));
  const divided = sides.map(([side, rows]) => `${rows.toLocaleString("en")} ${sideName(side)}`).join(", ");
  const groups = isNumber(data.groups) ? `; ${counted(data.groups, textOr(data.group_name, "group"))}` : "";
  return isNumber(data.rows) ? `${data.rows.toLocaleString("en")} (${divided})${groups}` : null;
}

function featuresInWords(model) {
  const set = asObject(model.feature_set);
  const named = isText(set.name) ? `, feature set ${set.name}` : "";
  const clip = asObject(set.parameters).clip_seconds;
  return `${model.n_features}${named}${isNumber(clip) ? `, of clips of ${clip} s` : ""}`;
}

function facts(model) {
  const data = asObject(model.data);
  const versions = Object.entries(asObject(model.library_versions)).filter(([, version]) => isText(version));
  const entries = [
    ["Name", model.model_name],
    ["Made", isText(model.timestamp) ? model.timestamp.replace("T", " ").slice(0, 16) : null],
    ["Genres", model.genres.join(", ")],
    ["Trained on", data.origin],
    ["Synthetic", data.synthetic === undefined || data.synthetic === null ? null : data.synthetic ? "yes" : "no"],
    ["Licence of the data", data.licence],
    ["To cite", data.citation],
    ["Rows", rowsInWords(data)],
    ["Split", model.split_protocol],
    ["Features", featuresInWords(model)],
    ["Network", model.model_architecture],
    ["Made with", versions.map(([name, version]) => `${name} ${version}`).join(", ")],
    ["Served by", `genre-classifier ${model.service_version}, ${model.backend}`],
    ["SHA-256", model.bundle],
  ];
  const known = entries.filter(([, value]) => isText(value));
  const list = known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  const names = asList(model.features);
  const all = names.length
    ? el("details", {}, el("summary", {}, "Names of the features"), el("p", { class: "names" }, names.join(", ")))
    : null;
  return part("Origin", el("dl", { class: "facts" }, ...list), isText(data.origin) ? null : missing("its training data"), all);
}

function checklist(items) {
  const known = asList(items).filter((item) => isText(item?.item));
  if (!known.length) return null;
  const lines = known.map(({ item, met, evidence }) => {
    const [mark, words] = met === true ? ["✓", "met"] : met === false ? ["✗", "not met"] : ["?", "not known"];
    return el(
      "li",
      { class: met === true ? "met" : null },
      el("span", { class: "mark", "aria-hidden": "true" }, mark),
      el(
        "div",
        {},
        el("strong", {}, item),
        el("span", { class: "hidden" }, `: ${words}.`),
        el("p", { class: "soft" }, textOr(evidence, "")),
      ),
    );
  });
  const met = known.filter((item) => item.met === true).length;
  return part(
    "Production checklist",
    el("p", { class: "soft" }, `${met} of ${known.length} are met.`),
    el("ul", { class: "checklist" }, ...lines),
  );
}
