"""The page at / in a real browser: songs, features and model card, whatever their names are."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

for module in ("playwright", "axe_playwright_python", "fastapi", "fastapi_offline"):
    if find_spec(module) is None and not os.environ.get("REQUIRE_BROWSER"):
        pytest.skip(f"needs the extra dev: {module} is not installed", allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright  # noqa: E402

from genre_classifier.bundle.format import BundleDetails, read_bundle  # noqa: E402
from genre_classifier.cli.main import main  # noqa: E402
from genre_classifier.features.sets import CORE20  # noqa: E402
from genre_classifier.service.model import ModelService  # noqa: E402
from genre_classifier.service.page import POLICY, read_page_files  # noqa: E402
from genre_classifier.terminal import format_name  # noqa: E402
from tests.conftest import ROOT, composed  # noqa: E402
from tests.example_models import FEATURES, make_model, make_scaler  # noqa: E402
from tests.service.serving import NAME, Client, export, served  # noqa: E402
from tools.page.screenshots import CLIPS, find_chromium, launch, make_medley  # noqa: E402

ROCK = CLIPS / "rock-artist-08-track-01.ogg"
JAZZ = CLIPS / "jazz-artist-01-track-01.ogg"
OLD = ROOT / "tests" / "formats" / "bundles"
SIZES = {"desktop": {"width": 1100, "height": 900}, "phone": {"width": 360, "height": 740}}
HOSTILE = '<img src=x onerror="document.title=1">'
TURNED = "rock\u202eabc\x1b"  # the rest of a line would read from right to left
TURNED_SHOWN = format_name(TURNED)
TITLE = "Genre classifier"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; without one the tests skip, or fail if REQUIRE_BROWSER is set."""
    if find_chromium() is None:
        reason = "needs Chromium: apt-get install chromium"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh export of a run on the demo data."""
    from genre_classifier.exporting.export import export as export_run
    from genre_classifier.training.fit import train

    folder = tmp_path_factory.mktemp("page")
    quiet = ["trainer.max_epochs=3", "trainer.enable_progress_bar=false", "logger=none"]
    train(composed(*quiet, f"run_dir={folder / 'run'}"))
    export_run(composed(f"run={folder / 'run'}", f"save_dir={folder}", config="export"))
    return folder


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[Path, str]]:
    """The addresses of the services that run, by their bundles' folders."""

    class Servers(dict[Path, str]):
        def __missing__(self, folder: Path) -> str:
            self[folder] = f"http://127.0.0.1:{stack.enter_context(served(ModelService(folder, NAME)))}/"
            return self[folder]

    with ExitStack() as stack:
        yield Servers()


class Opened:
    """A page in the browser, and what it must not do."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        page.on("console", lambda message: self._note(message.text))
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("request", lambda request: self._note_request(request.url))
        page.goto(address)
        page.locator("#model .card").last.wait_for()

    def _note(self, text: str) -> None:
        if "responded with a status of 422" not in text:  # what the browser says of a refused song
            self.complaints.append(text)

    def _note_request(self, url: str) -> None:
        if not url.startswith((self.address, "blob:", "data:")):
            self.complaints.append(f"asked {url}")

    def choose(self, *songs: Path) -> None:
        self.page.set_input_files("#files", songs)

    def drop(self, *songs: Path) -> None:
        files = [[song.name, base64.b64encode(song.read_bytes()).decode()] for song in songs]
        transfer = self.page.evaluate_handle(
            """(files) => {
                const transfer = new DataTransfer();
                for (const [name, content] of files) {
                    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                    transfer.items.add(new File([bytes], name));
                }
                return transfer;
            }""",
            files,
        )
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event("#drop", event, {"dataTransfer": transfer})

    def answered(self, place: int = 0) -> Locator:
        """Return a song's card when it has its answer."""
        song = self.page.locator(".song").nth(place)
        expect(song).to_have_attribute("data-state", "done", timeout=60_000)
        return song

    def failed(self, place: int = 0) -> str:
        song = self.page.locator(".song").nth(place)
        expect(song).to_have_attribute("data-state", "failed", timeout=60_000)
        return song.locator(".status").inner_text()


@pytest.fixture
def opened(browser: Browser, servers: dict[Path, str]) -> Iterator[Any]:
    """A function that opens the page of a bundle; at the end no page may have complained or left its service."""
    with ExitStack() as stack:
        pages: list[Opened] = []

        def open_page(folder: Path, size: str = "desktop", scheme: str = "light") -> Opened:
            context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)  # type: ignore[arg-type]
            stack.callback(context.close)
            pages.append(Opened(context.new_page(), servers[folder]))
            return pages[-1]

        yield open_page
        assert [complaint for page in pages for complaint in page.complaints] == []


def genres_shown(part: Locator) -> list[tuple[str, float]]:
    """Return the names and shares of a list of bars."""
    names = part.locator(".bar-name").all_inner_texts()
    values = part.locator(".bar-value").all_inner_texts()
    return [
        (name, round(float(value.removesuffix("\xa0%")) / 100, 3))
        for name, value in zip(names, values, strict=True)
    ]


def genres_predicted(song: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, float]]:
    """Return what ``genre-classifier predict`` says of a song."""
    capsys.readouterr()
    assert main(["predict", str(song), "--bundle", str(folder / NAME)]) == 0
    line = capsys.readouterr().out.removeprefix(f"{song}: ").split("  (")[0]
    return [(name, float(share)) for name, share in (entry.rsplit(" ", 1) for entry in line.split(", "))]


def test_a_chosen_song_is_answered_as_predict_answers(
    opened: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = opened(folder)
    page.choose(ROCK)
    song = page.answered()
    expected = genres_predicted(ROCK, folder, capsys)
    assert genres_shown(song.locator(".bars")) == expected
    assert song.locator("h3").inner_text() == ROCK.name
    assert song.locator(".status").inner_text().startswith(f"{expected[0][0]}, ")
    assert "0:08 long. Answered in" in song.inner_text()
    assert "no longer than one window, so it has no curve" in song.inner_text()
    song.get_by_role("button", name="Show all 8 genres").click()
    assert len(genres_shown(song.locator(".bars"))) == 8
    song.get_by_role("button", name=f"Remove {ROCK.name}").click()
    expect(page.page.locator(".song")).to_have_count(0)


def test_dropped_songs_wait_in_line_and_one_that_is_none_says_why(
    opened: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = opened(folder)
    text = tmp_path / "notes.mp3"
    text.write_text("no music" * 100)
    page.drop(ROCK, text, JAZZ)
    assert genres_shown(page.answered(0).locator(".bars")) == genres_predicted(ROCK, folder, capsys)
    assert "'notes.mp3' cannot be decoded (Format not recognised); expected" in page.failed(1)
    assert genres_shown(page.answered(2).locator(".bars")) == genres_predicted(JAZZ, folder, capsys)
    other, empty = tmp_path / "cover.png", tmp_path / "empty.wav"
    for path in (other, empty):
        path.touch()
    page.drop(other, empty)
    assert page.failed(3) == (
        ".png is not a kind of file that is read here. Save the song as .wav, .mp3, .flac, .ogg."
    )
    assert page.failed(4) == "The file is empty."


def test_a_long_song_has_a_curve_that_the_player_and_the_keyboard_move_along(
    opened: Any, folder: Path, tmp_path: Path
) -> None:
    song = make_medley(tmp_path / "medley.flac", ("rock", "jazz"))
    page = opened(folder)
    page.choose(song)
    card = page.answered()
    slider, audio = card.get_by_role("slider"), card.locator("audio")
    expect(slider).to_have_attribute("aria-valuemax", "48")
    assert card.locator(".plot").count() >= 3
    audio.evaluate("(audio) => { audio.currentTime = 12; }")
    expect(slider).to_have_attribute("aria-valuenow", "12")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"0:12, \S.* \d+\.\d\s%"))
    slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuenow", "17")
    assert audio.evaluate("(audio) => audio.currentTime") == pytest.approx(17, abs=0.1)
    slider.press("End")
    with Client(int(page.address.rsplit(":", 1)[1].strip("/"))) as client:
        boundary = "b"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\n'
        body = head.encode() + song.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
        _, answer = client.ask("POST", "/analyze-audio?over_time=true", body, kind)
    last = answer["over_time"][-1]["probabilities"]
    names = card.locator(".curve-name").all_inner_texts()
    values = card.locator(".curve-value").all_inner_texts()
    assert values == [f"{100 * last[name]:.1f}\xa0%" for name in names]


def test_a_song_that_the_browser_cannot_play_has_its_curve_without_a_player(
    opened: Any, folder: Path, tmp_path: Path
) -> None:
    page = opened(folder)
    page.choose(make_medley(tmp_path / "medley.aiff", ("rock", "jazz")))
    card = page.answered()
    expect(card.get_by_text("This browser cannot play this kind of file.")).to_be_visible()
    expect(card.locator("audio")).to_be_hidden()
    slider = card.get_by_role("slider")
    slider.press("PageUp")
    expect(slider).to_have_attribute("aria-valuenow", "30")


def test_names_of_files_and_genres_are_text(opened: Any, tmp_path: Path) -> None:
    samples, rate = soundfile.read(ROCK)
    genres = [HOSTILE, "<script>document.title=2</script>", "__proto__", "80", TURNED]
    names = (TURNED, *FEATURES[1:19], HOSTILE)
    export(
        tmp_path / "unmeasured", scaler=make_scaler(np.random.default_rng(0).normal(size=(50, 20))),
        model=make_model(20, 5), genre_names=genres, details=BundleDetails(feature_names=names),
    )  # fmt: skip
    page = opened(tmp_path / "unmeasured").page
    refusal = page.locator("#no-songs").inner_text()
    assert "features that cannot be measured from audio" in refusal
    assert TURNED_SHOWN in refusal
    page.fill("#features", ",".join(["1000"] * 20))
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#features-answer .bar-name")).to_have_count(5)
    shown = sorted([*genres[:-1], TURNED_SHOWN])
    assert sorted(page.locator("#features-answer .bar-name").all_inner_texts()) == shown
    assert "Far outside the training data" in page.locator("#features-answer").inner_text()
    assert HOSTILE in page.locator("#model").inner_text()
    assert TURNED_SHOWN in page.locator("#model").inner_text()
    export(
        tmp_path / "measured", scaler=make_scaler(np.random.default_rng(0).normal(size=(50, 20))),
        model=make_model(20, 5), genre_names=genres,
        details=BundleDetails(feature_names=FEATURES, feature_set=CORE20.build_reference(2.0)),
    )  # fmt: skip
    songs = opened(tmp_path / "measured")
    hostile = tmp_path / f"{HOSTILE}{TURNED}.wav"
    soundfile.write(hostile, samples[: 4 * rate], rate)
    songs.choose(hostile)
    song = songs.answered()
    assert song.locator("h3").inner_text() == f"{HOSTILE}{TURNED_SHOWN}.wav"
    song.get_by_role("button", name="Show all 5 genres").click()
    assert sorted(song.locator(".bar-name").all_inner_texts()) == shown
    assert sorted(song.locator(".curve-name").all_inner_texts()) == shown
    assert "Far outside the training data" in song.locator(".notice").inner_text()
    for one in (page, songs.page):
        assert one.title() == TITLE
        assert one.locator("img, .bars script, .song script").count() == 0


def test_pasted_features_are_predicted_in_each_form(opened: Any, folder: Path) -> None:
    page = opened(folder).page
    page.locator("#paste summary").click()
    bundle = read_bundle(folder)
    mean = [round(value, 3) for value in bundle.scaler.mean or ()]
    shown = page.locator("#features-answer")
    answers = []
    for text in (
        ", ".join(map(str, mean)),
        "\n".join(map(str, mean)),
        json.dumps(dict(zip(FEATURES, mean, strict=True))),
        "\t".join(FEATURES) + "\n" + "\t".join(map(str, mean)),
        json.dumps({"features": mean}),
    ):
        page.fill("#features", text)
        with page.expect_response("**/predict") as response:
            page.get_by_role("button", name="Predict").click()
        expected = [name for name, _ in sorted(
            response.value.json()["all_probabilities"].items(), key=lambda entry: -entry[1]
        )]  # fmt: skip
        expect(shown.locator(".bar-name")).to_have_text(expected)
        answers.append(genres_shown(shown))
    assert answers == [answers[0]] * 5
    for text, message in (
        ("1, 2, x", "This cannot be read: value 3 is x; expected a number"),
        ("a b\n1 2 3", "This cannot be read: 2 names, but 3 numbers"),
    ):
        page.fill("#features", text)
        page.get_by_role("button", name="Predict").click()
        expect(shown).to_have_text(message)


def test_refused_features_are_shown_with_the_service_s_reason(
    browser: Browser, servers: Any, folder: Path
) -> None:
    page = browser.new_page()
    page.goto(servers[folder])
    page.locator("#paste summary").click()
    page.fill("#features", "1, 2")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#features-answer")).to_have_text("features: expected 20 features, found 2")
    page.close()


def test_the_model_card_shows_what_the_bundle_says(opened: Any, folder: Path) -> None:
    page = opened(folder).page
    metadata = read_bundle(folder).metadata
    text = page.locator("#model").inner_text().replace("\xa0", " ")
    test, evaluation, data = metadata["metrics"]["test"], metadata["evaluation"], metadata["data"]
    assert page.locator("#synthetic").is_visible()
    for name in ("accuracy", "f1", "f1_macro", "top3"):
        low, high = evaluation["intervals"][name]
        assert f"{100 * test[name]:.1f} %" in text
        assert f"{100 * low:.1f} % to {100 * high:.1f} %" in text
    for known in (data["origin"], data["licence"], data["citation"], metadata["split_protocol"]):
        assert known in text
    assert "2,400 (1,680 training, 360 validation, 360 test); 160 artists" in text
    assert f"confidence is {100 * test['ece']:.1f} % away" in text
    for item in metadata["production_checklist"]:
        assert item["item"] in text
        assert item["evidence"] in text
    assert f"torch {metadata['library_versions']['torch']}" in text
    rows = page.locator(".confusion tbody tr").all()
    shown = [[cell.replace("·", "0") for cell in row.locator("td").all_inner_texts()] for row in rows]
    assert [[int(cell) for cell in row] for row in shown] == evaluation["confusion"]
    assert page.locator(".confusion thead th").all_inner_texts() == metadata["genre_names"]
    scores = {name: round(value, 3) for name, value in evaluation["f1_per_genre"].items()}
    card = page.locator(".card", has=page.get_by_role("heading", name="F1 of each genre"))
    assert dict(genres_shown(card)) == scores
    n_filled = sum(rows > 0 for _, _, rows, _, _ in evaluation["reliability"])
    assert page.locator(".reliability circle").count() == n_filled


@pytest.mark.parametrize("age", ["contract_only", "format1"])
def test_the_model_card_of_an_old_bundle_has_what_there_is(age: str, opened: Any, tmp_path: Path) -> None:
    shutil.copytree(OLD / age, tmp_path / age)
    page = opened(tmp_path / age).page
    assert page.locator("#synthetic").is_hidden()
    text = page.locator("#model").inner_text()
    assert "test_accuracy\n0.81" in text
    assert "This bundle does not record which genres it confuses." in text
    assert "This bundle does not record its training data." in text
    assert "undefined" not in text
    assert "NaN" not in text


def test_a_model_card_is_drawn_whatever_a_bundle_s_metadata_holds(opened: Any, folder: Path) -> None:
    drawn = opened(folder).page.evaluate(
        """async () => {
            const { modelCard, isSynthetic } = await import("/page/model.js");
            const model = await (await fetch("model")).json();
            const junk = [null, 3, "x", "", true, [], {}, [1], [null], ["x"], [{}], [[]], [[1, 2]], { accuracy: "x" }];
            const words = [];
            const draw = (changed) => {
                isSynthetic(changed);
                words.push(modelCard(changed).textContent);
            };
            const checked = ["genres", "n_features", "features", "songs", "bundle", "backend", "service_version"];
            for (const key of Object.keys(model).filter((name) => !checked.includes(name))) {
                for (const value of junk) {
                    draw({ ...model, [key]: value });
                    for (const inner of Object.keys(model[key] ?? {})) {
                        draw({ ...model, [key]: { ...model[key], [inner]: value } });
                    }
                }
            }
            return words;
        }"""
    )
    assert len(drawn) > 400
    assert not [text for text in drawn if re.search(r"undefined|NaN|\[object|Infinity", text)]


def test_a_service_without_a_bundle_says_so(browser: Browser, servers: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(servers[tmp_path])
    expect(page.get_by_role("alert")).to_contain_text("There is no model to ask: ")
    assert page.locator("#drop").is_hidden()
    page.close()


def test_a_busy_service_is_asked_again_when_it_says(browser: Browser, servers: Any, folder: Path) -> None:
    page = browser.new_page()
    asked: list[str] = []

    def busy_once(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) > 1:
            route.continue_()
            return
        content = json.dumps({"detail": [{"loc": [], "msg": "too many songs wait already"}], "bundle": None})
        route.fulfill(status=503, headers={"Retry-After": "1"}, body=content, content_type="application/json")

    page.route("**/analyze-audio*", busy_once)
    page.goto(servers[folder])
    page.locator("#limits", has_text="MB").wait_for()
    page.set_input_files("#files", ROCK)
    busy = "The service is busy (too many songs wait already). Trying again in 1 second."
    expect(page.locator(".song .status")).to_have_text(busy)
    expect(page.locator(".song")).to_have_attribute("data-state", "done", timeout=60_000)
    assert len(asked) == 2
    page.unroute_all()
    page.route("**/analyze-audio*", lambda route: route.abort())
    page.set_input_files("#files", ROCK)
    expect(page.locator(".song .status").last).to_have_text(
        "The service cannot be reached. Is it still running?"
    )
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".song").last).to_have_attribute("data-state", "done", timeout=60_000)
    page.close()


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("desktop", "dark"), ("phone", "light")])
def test_axe_finds_nothing_serious_and_nothing_is_too_wide(
    size: str, scheme: str, opened: Any, folder: Path, tmp_path: Path
) -> None:
    text = tmp_path / "notes.mp3"
    text.write_text("no music")
    page = opened(folder, size, scheme)
    page.choose(make_medley(tmp_path / "medley.flac", ("rock", "jazz")), text)
    page.answered(0)
    page.failed(1)
    for summary in page.page.locator("summary").all():
        summary.click()
    found = Axe().run(page.page).response["violations"]
    assert [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found] == []
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_everything_can_be_reached_with_the_keyboard(opened: Any, folder: Path) -> None:
    page = opened(folder)
    page.choose(ROCK)
    page.answered()
    reached = set()
    for _ in range(40):
        page.page.keyboard.press("Tab")
        reached.add(
            page.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
        )
    assert {
        "files",
        "About the model",
        "HTTP interface",
        "Remove",
        "Show all 8 genres",
        "Paste features",
    } <= reached


def test_an_injected_script_does_not_run(browser: Browser, servers: Any, folder: Path) -> None:
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(servers[folder])
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'owned'";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror=\\"document.title='owned'\\">");
        }"""
    )
    page.wait_for_function("() => document.images[0]?.complete")
    assert page.title() == TITLE
    assert any("script-src" in line for line in refused)
    page.close()


def test_the_documentation_works_without_the_internet(browser: Browser, servers: Any, folder: Path) -> None:
    page = browser.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"{servers[folder]}docs")
    page.locator(".opblock").first.wait_for(timeout=30_000)
    assert page.locator(".opblock-summary-path").all_inner_texts().count("/analyze-audio") == 1
    assert all(url.startswith((servers[folder], "data:")) for url in asked)
    assert complaints == []
    page.close()


def test_the_page_s_files_are_small_and_name_no_other_address() -> None:
    files = read_page_files()
    assert {"/", "/docs", "/page/page.js", "/page/page.css", "/page/icon.svg"} <= set(files)
    assert sum(len(file.content) for file in files.values()) < 100_000
    for path, file in files.items():
        text = file.content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), path
        # Only dom.js adds text and attributes: it makes invisible letters visible.
        assert path == "/page/dom.js" or not re.search(r"textContent|innerText|setAttribute\(", text), path


def test_the_page_is_served_with_its_policy_and_is_not_sent_twice(servers: Any, folder: Path) -> None:
    with Client(int(servers[folder].rsplit(":", 1)[1].strip("/"))) as client:
        for path, file in read_page_files().items():
            client.connection.request("GET", path)
            response = client.connection.getresponse()
            assert (response.status, response.read()) == (200, file.content)
            assert response.headers["content-security-policy"] == POLICY
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"
            assert response.headers["cache-control"] == "no-cache"
            etag = response.headers["etag"]
            client.connection.request("GET", path, headers={"If-None-Match": f'W/{etag}, "other"'})
            response = client.connection.getresponse()
            assert (response.status, response.read(), response.headers["etag"]) == (304, b"", etag)
            client.connection.request("HEAD", path)
            response = client.connection.getresponse()
            assert (response.status, response.read()) == (200, b"")
            assert int(response.headers["content-length"]) == len(file.content)
