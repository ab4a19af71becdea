// One song: its way to the service, its answer, its player and its curve.

import { clock, counted, el, genreBars, percent, ranked, reasonOf, setAttributes, setText, unusualHint } from "./dom.js";
import { curve } from "./curve.js";

const MOST_TRIES = 20;
const FEW_GENRES = 3;
const MOST_PLOTS = 5;

export class Song {
  /** @param limits what GET /model says of songs, read when the song is sent. */
  constructor(file, limits) {
    this.file = file;
    this.limits = limits;
    this.isRemoved = false;
    this.status = el("p", { class: "status", role: "status" }, "Waiting");
    this.elapsed = el("p", { class: "soft", "aria-hidden": "true", hidden: true });
    this.progress = el("progress", { max: 1, "aria-label": `Progress of ${file.name}`, hidden: true });
    this.body = el("div", { class: "song-body" });
    this.removal = el("button", { class: "quiet", type: "button", "aria-label": `Remove ${file.name}` }, "Remove");
    this.removal.addEventListener("click", () => this.remove());
    const title = el("h3", {}, file.name);
    const head = el("div", { class: "song-head" }, title, this.removal);
    this.element = el("li", { class: "card song" }, head, this.status, this.progress, this.elapsed, this.body);
  }

  remove() {
    this.isRemoved = true;
    this.request?.abort();
    this.wake?.();
    if (this.address) URL.revokeObjectURL(this.address);
    const next = this.element.nextElementSibling?.querySelector("button") ?? document.getElementById("files");
    this.element.remove();
    next.focus();
  }

  say(words, state = "") {
    setText(this.status, words);
    this.element.dataset.state = state;
  }

  /** Send the song and show the answer; never rejects. */
  async send() {
    this.say("Reading the file");
    const refusal = this.refusal();
    if (refusal) return this.fail(refusal);
    for (let tries = 1; !this.isRemoved; tries += 1) {
      const { status, answer, wait, times } = await this.post();
      if (this.isRemoved) return undefined;
      if (status === 200) return this.show(answer, times);
      if (status === 0) return this.fail("The service cannot be reached. Is it still running?", true);
      if (status !== 503 || tries === MOST_TRIES) return this.fail(reasonOf(answer, status), status >= 500);
      await this.pause(wait, reasonOf(answer, status));
    }
    return undefined;
  }

  /** Why the song need not be sent, or null. */
  refusal() {
    const { suffixes, most_bytes: most } = this.limits();
    const suffix = /\.[^.]*$/.exec(this.file.name)?.[0].toLowerCase() ?? "no suffix";
    if (!suffixes.includes(suffix)) {
      return `${suffix} is not a kind of file that is read here. Save the song as ${suffixes.slice(0, 4).join(", ")}.`;
    }
    if (this.file.size > most) return `The file is larger than ${Math.floor(most / 2 ** 20)} MB.`;
    return this.file.size ? null : "The file is empty.";
  }

  post() {
    this.progress.hidden = false;
    this.progress.value = 0;
    this.say("Uploading", "sending");
    const start = performance.now();
    let uploaded = start;
    const form = new FormData();
    form.append("file", this.file, this.file.name);
    const request = new XMLHttpRequest();
    this.request = request;
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) this.progress.value = event.loaded / event.total;
    });
    request.upload.addEventListener("load", () => {
      uploaded = performance.now();
      this.progress.hidden = true; // how long measuring takes is not known
      this.say("Measuring", "measuring");
    });
    // A moving bar would take the processor from the service, where both are on one machine.
    const ticking = setInterval(() => {
      this.elapsed.hidden = false;
      setText(this.elapsed, `${Math.round((performance.now() - start) / 1000)} s`);
    }, 1000);
    return new Promise((resolve) => {
      request.addEventListener("loadend", () => {
        clearInterval(ticking);
        this.progress.hidden = true;
        this.elapsed.hidden = true;
        this.request = null;
        const end = performance.now();
        let answer = null;
        try {
          answer = JSON.parse(request.responseText);
        } catch {
          // a proxy's page, or nothing
        }
        resolve({
          status: answer === null && request.status === 200 ? 0 : request.status,
          answer,
          wait: Math.min(60, Number(request.getResponseHeader("Retry-After")) || 5),
          times: { upload: (uploaded - start) / 1000, measure: (end - uploaded) / 1000 },
        });
      });
      request.open("POST", "analyze-audio?over_time=true");
      request.send(form);
    });
  }

  pause(seconds, reason) {
    this.say(`The service is busy (${reason}). Trying again in ${counted(seconds, "second")}.`, "busy");
    return new Promise((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, 1000 * seconds);
    });
  }

  fail(reason, canRetry = false) {
    this.say(reason, "failed");
    this.progress.hidden = true;
    if (!canRetry) return;
    const again = el("button", { class: "button", type: "button" }, "Try again");
    again.addEventListener("click", () => {
      again.remove();
      this.element.dispatchEvent(new CustomEvent("again", { bubbles: true, detail: this }));
    });
    this.body.replaceChildren(again);
  }

  show(answer, times) {
    const { prediction } = answer;
    this.say(`${prediction.predicted_genre}, ${percent(prediction.confidence)}`, "done");
    const genres = ranked(prediction.all_probabilities).map(([name]) => name);
    const plots = el("div");
    const list = el("div");
    const { player, note } = this.player();
    const draw = (all) => {
      list.replaceChildren(genreBars(prediction.all_probabilities, all ? genres.length : FEW_GENRES));
      plots.replaceChildren(this.plots(answer, all ? genres : plotted(genres, answer.over_time), player));
    };
    draw(false);
    this.body.replaceChildren(
      list,
      unusualHint(prediction) ?? "",
      player,
      note,
      plots,
      el("div", { class: "song-foot" }, el("p", { class: "soft" }, facts(answer, times)), toggle(genres.length, draw)),
    );
    this.element.dispatchEvent(new CustomEvent("answered", { bubbles: true, detail: prediction.bundle }));
  }

  player() {
    this.address = URL.createObjectURL(this.file);
    const label = `Play ${this.file.name}`;
    const player = el("audio", { controls: true, preload: "metadata", src: this.address, "aria-label": label });
    const note = el("p", { class: "soft", hidden: true }, "This browser cannot play this kind of file.");
    player.addEventListener("error", () => {
      player.hidden = true;
      note.hidden = false;
    });
    return { player, note };
  }

  plots(answer, genres, player) {
    const points = answer.over_time;
    if (points.length < 2) {
      return el("p", { class: "soft" }, "The song is no longer than one window, so it has no curve over time.");
    }
    const drawn = curve(points, answer.duration, genres, (time) => {
      if (!player.hidden) player.currentTime = time;
    });
    const follow = () => {
      if (!drawn.element.isConnected) return;
      drawn.show(player.currentTime);
      if (!player.paused) requestAnimationFrame(follow);
    };
    for (const event of ["play", "seeking", "timeupdate"]) player.addEventListener(event, follow);
    const seconds = Math.round(points[0].end - points[0].start);
    return el(
      "section",
      { class: "over-time" },
      el("h4", {}, "Genres over time"),
      el("p", { class: "soft" }, `Each point tells the genre of ${seconds} seconds of music around it.`),
      drawn.element,
    );
  }
}

/** The genres that a reader wants to follow: the song's first ones, and each that leads somewhere. */
function plotted(genres, points) {
  const leaders = new Set(points.map((point) => ranked(point.probabilities)[0][0]));
  return genres.filter((genre, place) => place < FEW_GENRES || leaders.has(genre)).slice(0, MOST_PLOTS);
}

function toggle(number, draw) {
  const button = el("button", { class: "quiet", type: "button", "aria-expanded": "false" });
  const name = (all) => (all ? "Show fewer genres" : `Show all ${number} genres`);
  setText(button, name(false));
  button.addEventListener("click", () => {
    const all = button.getAttribute("aria-expanded") === "false";
    setAttributes(button, { "aria-expanded": String(all) });
    setText(button, name(all));
    draw(all);
  });
  return number > FEW_GENRES ? button : "";
}

function facts(answer, times) {
  const end = answer.over_time.at(-1)?.end ?? answer.duration;
  const rest = answer.duration - end > 60 ? `; measured up to ${clock(end)}` : "";
  const total = (times.upload + times.measure).toFixed(1);
  const parts = `${times.upload.toFixed(1)} s to upload, ${times.measure.toFixed(1)} s to measure`;
  return `${clock(answer.duration)} long${rest}. Answered in ${total} s: ${parts}.`;
}
