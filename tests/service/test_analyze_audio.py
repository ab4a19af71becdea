"""POST /analyze-audio answers as predict does, refuses what is no audio with a reason, and goes on."""

from __future__ import annotations

import io
import multiprocessing.util
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for extra in ("fastapi", "msgspec", "python_multipart", "httpx"):
    pytest.importorskip(extra, reason="needs the extra serve")

import asyncio  # noqa: E402

import httpx  # noqa: E402

from genre_classifier.bundle.format import BundleDetails, read_bundle, wrap_bundle  # noqa: E402
from genre_classifier.bundle.songs import AudioRecipe, build_audio_recipe, build_song_answer, predict_song  # noqa: E402
from genre_classifier.bundle.writing import write_bundle  # noqa: E402
from genre_classifier.errors import AudioError  # noqa: E402
from genre_classifier.features.decoding import apart  # noqa: E402
from genre_classifier.features.decoding.apart import Limits, measure_apart  # noqa: E402
from genre_classifier.features.decoding.audio import SUFFIXES, Excerpt  # noqa: E402
from genre_classifier.features.measure import measure_file  # noqa: E402
from genre_classifier.features.pretrained.weights import load_weights  # noqa: E402
from genre_classifier.features.sets import CORE20, MUSICNN50  # noqa: E402
from genre_classifier.features.spectral.core20 import extract_core20  # noqa: E402
from genre_classifier.network import GenreClassifier  # noqa: E402
from genre_classifier.service import audio as endpoint  # noqa: E402
from genre_classifier.service import upload as uploads  # noqa: E402
from genre_classifier.service.application import GenreService  # noqa: E402
from genre_classifier.service.model import ModelService  # noqa: E402
from genre_classifier.service.upload import RefusedAudioError, Upload  # noqa: E402
from tests.example_models import FEATURES, GENRES, METRICS, make_model, make_rows, make_scaler  # noqa: E402
from tests.features.sounds import FORMATS, music, write  # noqa: E402

NAME = "genre_classifier_production"
BOUNDARY = "----boundary7MA4YWxkTrZu0gW"


def service_of(folder: Path, details: BundleDetails) -> ModelService:
    rows = make_rows(n_features=len(details.feature_names or FEATURES))
    if (
        details.feature_names == FEATURES
    ):  # as wide apart as those of music, so that not all answers are alike
        sounds = [music(1.0, seed=seed)[:, 0] * 0.1 ** (seed / 10) for seed in range(20)]
        rows = np.stack([extract_core20(sound) for sound in sounds]).astype(np.float64)
    write_bundle(
        make_model(len(details.feature_names or FEATURES)),
        make_scaler(rows),
        GENRES,
        METRICS,
        folder,
        details=details,
        onnx=False,
    )
    service = ModelService(folder, NAME)
    service.refresh()
    return service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> ModelService:
    """A service of a bundle trained on clips of two seconds."""
    details = BundleDetails(feature_names=FEATURES, feature_set=CORE20.build_reference(2.0))
    return service_of(tmp_path_factory.mktemp("served"), details)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the service writes is deleted, whatever happens."""
    # multiprocessing keeps a socket for all processes in the first temporary folder it sees.
    multiprocessing.util.get_temp_dir()
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.glob("genre-classifier-audio-*")) == []


def form(name: str, content: bytes, field: str = "file") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n3\r\n'
    head += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(
    service: ModelService,
    body: bytes,
    content_type: str = f"multipart/form-data; boundary={BOUNDARY}",
    query: str = "",
    **headers: str,
) -> tuple[int, dict[str, Any]]:
    """Ask the application as a server would, the body in blocks."""
    blocks = [body[start : start + 60_000] for start in range(0, len(body), 60_000)]

    async def content() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(GenreService(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            named = {"content-type": content_type, **{k.replace("_", "-"): v for k, v in headers.items()}}
            return await client.post(f"/analyze-audio?{query}", content=content(), headers=named)

    response = asyncio.run(ask())
    return response.status_code, response.json()


def curve(service: ModelService, path: Path) -> list[dict[str, Any]]:
    status, answer = post(service, form(path.name, path.read_bytes()), query="over_time=true")
    assert status == 200, answer
    _, without = post(service, form(path.name, path.read_bytes()))
    points: list[dict[str, Any]] = answer.pop("over_time")
    assert answer == without
    return points


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_is_answered_as_predict_answers(suffix: str, service: ModelService, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", music(5.0, 44_100, channels=2), 44_100)
    status, answer = post(service, form(f"C:\\Music\\Ünï 🎵.{suffix.upper()}", path.read_bytes()))
    assert status == 200, answer
    assert list(answer) == ["filename", "duration", "features", "prediction"]
    assert answer["filename"] == f"Ünï 🎵.{suffix.upper()}"
    assert answer["duration"] == pytest.approx(5.0, abs=0.1)
    bundle = read_bundle(service.folder)
    predictor, recipe = (
        wrap_bundle(bundle, GenreClassifier),
        build_audio_recipe(bundle.metadata, bundle.feature_names),
    )
    song = predict_song(predictor, recipe, path, recipe.windows)
    expected = build_song_answer(predictor, song, return_probs=True)
    assert {key: answer["prediction"][key] for key in expected} == expected
    assert answer["prediction"]["bundle"] == bundle.digest
    assert isinstance(answer["prediction"]["outside_training_range"], bool)
    _, _, features = recipe.measure(path, recipe.windows)
    assert list(answer["features"]) == list(FEATURES)
    np.testing.assert_allclose(list(answer["features"].values()), features.mean(axis=0, dtype=float))


@pytest.mark.parametrize(("seconds", "step"), [(5.0, 1.0), (70.0, 1.2)])
def test_a_curve_has_the_song_s_overlapping_windows(
    seconds: float, step: float, service: ModelService, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.wav", music(seconds))
    points = curve(service, path)
    bundle = read_bundle(service.folder)
    recipe = build_audio_recipe(bundle.metadata, bundle.feature_names)
    song = predict_song(
        wrap_bundle(bundle, GenreClassifier), recipe, path, recipe.build_sliding_windows(step)
    )
    assert len(points) == len(song.starts) <= 60
    assert [(point["start"], point["end"]) for point in points] == [
        (start, pytest.approx(start + 2.0)) for start in song.starts
    ]
    found = [list(point["probabilities"].values()) for point in points]
    np.testing.assert_allclose(found, song.probabilities, atol=1e-9)


def test_a_curve_of_a_long_song_joins_windows(service: ModelService, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(123.0))  # 62 windows, the last of one second
    points = curve(service, path)
    bundle = read_bundle(service.folder)
    recipe = build_audio_recipe(bundle.metadata, bundle.feature_names)
    song = predict_song(wrap_bundle(bundle, GenreClassifier), recipe, path, recipe.windows)
    assert [point["start"] for point in points] == [4.0 * number for number in range(31)]
    assert points[-1]["end"] == pytest.approx(123.0)
    found = [list(point["probabilities"].values()) for point in points]
    np.testing.assert_allclose(found, song.probabilities.reshape(31, 2, -1).mean(axis=1), atol=1e-9)


def test_a_song_of_one_window_has_one_point(service: ModelService, tmp_path: Path) -> None:
    (point,) = curve(service, write(tmp_path / "a.wav", music(1.5)))
    assert (point["start"], point["end"]) == (0.0, 1.5)


def test_a_curve_that_takes_too_long_has_the_windows_side_by_side(
    service: ModelService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = endpoint.measure_apart

    def windows_only(path: Path, name: str, excerpt: Excerpt, limits: Limits, **given: Any) -> Any:
        if excerpt.step is not None:
            assert limits.seconds < endpoint.LIMITS.seconds
            raise AudioError(f"{path} takes more than {limits.seconds:g} s to measure", kind="unreadable")
        return whole(path, name, excerpt, limits, **given)

    monkeypatch.setattr(endpoint, "measure_apart", windows_only)
    points = curve(service, write(tmp_path / "a.wav", music(8.0)))
    assert [point["start"] for point in points] == [0.0, 2.0, 4.0, 6.0]


def test_whether_a_curve_is_asked_for_must_be_clear(service: ModelService) -> None:
    status, answer = post(service, form("a.wav", b"x"), query="over_time=perhaps")
    assert status == 422
    assert answer["detail"][0] == {
        "loc": ["query", "over_time"],
        "msg": "expected true or false, found 'perhaps'",
    }


@pytest.mark.parametrize("name", ["core20", "musicnn"])
@pytest.mark.parametrize("seconds", [31.0, 95.0, 240.0, 899.0, 1200.0])
def test_an_overview_has_no_more_points_than_somebody_waits_for(name: str, seconds: float) -> None:
    recipe = AudioRecipe(name, (0,), ("first",), 30.0)
    n_points = len(list(recipe.build_overview(seconds).list_spans(seconds)))
    n_windows = len(list(recipe.windows.list_spans(seconds)))
    assert n_windows <= n_points <= max(recipe.most_points, n_windows)


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("song.wav", bytes(30_000_000))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mp3", b"just some text" * 100, "'a.mp3' cannot be decoded (Format not recognised)"),
        ("a.wav", bomb(), "'a.wav' cannot be decoded"),
        ("a.flac", bytes(range(256)) * 500, "'a.flac' cannot be decoded"),
        ("a.mp3", b"", "the file is empty"),
        ("a.zip", b"PK", "'a.zip': .zip is none of .wav, .mp3"),
        ("song", b"x", "'song': no suffix is none of"),
    ],
)
def test_what_is_no_audio_is_refused_with_a_reason(
    name: str, content: bytes, message: str, service: ModelService
) -> None:
    status, answer = post(service, form(name, content))
    assert status == 422
    assert message in answer["detail"][0]["msg"]
    assert answer["detail"][0]["loc"] == ["body", "file"]
    assert answer["bundle"] == service.served.digest


def test_truncated_short_and_silent_files_are_refused(service: ModelService, tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mp3", music(6.0, 44_100), 44_100).read_bytes()
    short = write(tmp_path / "b.wav", music(0.4)).read_bytes()
    silent = write(tmp_path / "c.wav", np.zeros((22_050, 1))).read_bytes()
    for name, content, message in (
        ("a.mp3", whole[: len(whole) // 2], "it is truncated or damaged"),
        ("b.wav", short, "expected at least 1"),
        ("c.wav", silent, "'c.wav' is silent"),
        ("d.flac", silent, "'d.flac' is WAV, not what .flac says"),
    ):
        status, answer = post(service, form(name, content))
        assert status == 422
        assert message in answer["detail"][0]["msg"]
        assert "temporary" not in answer["detail"][0]["msg"]
    assert post(service, form("a.mp3", whole))[0] == 200


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("audio/mpeg", b"x", "expected multipart/form-data with the field 'file'"),
        ("", b"", "expected multipart/form-data"),
        ("multipart/form-data", b"x", "expected multipart/form-data"),
        (
            f"multipart/form-data; boundary={BOUNDARY}",
            b"nothing of the kind",
            "the form cannot be read: Expected boundary character",
        ),
        (f"multipart/form-data; boundary={BOUNDARY}", form("a.mp3", b"x", "song"), "no file in the field"),
        (f"multipart/form-data; boundary={BOUNDARY}", form("a.mp3", b"x" * 100)[:-60], "the form is cut off"),
    ],
)
def test_what_is_no_form_with_a_file_is_refused(
    content_type: str, body: bytes, message: str, service: ModelService
) -> None:
    status, answer = post(service, body, content_type)
    assert status == 400
    assert message in answer["detail"][0]["msg"]


def test_a_file_above_the_limit_is_refused(service: ModelService, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (endpoint, uploads):
        monkeypatch.setattr(module, "MAX_AUDIO_BYTES", 1000)
    for body, headers in (
        (form("a.wav", bytes(1001)), {}),
        (form("a.wav", bytes(100_000)), {}),
        (b"", {"content_length": "99999999"}),
    ):
        status, answer = post(service, body, **headers)
        assert status == 413
        assert answer["detail"][0]["msg"] == "more than 1,000 bytes"


def test_fifty_megabytes_are_allowed() -> None:
    assert uploads.MAX_AUDIO_BYTES == 50 * 2**20


def test_a_bad_form_leaves_no_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with (
        pytest.raises(RefusedAudioError, match="Expected boundary character"),
        Upload(f"multipart/form-data; boundary={BOUNDARY}", SUFFIXES) as upload,
    ):
        upload.write(b"this is no form")
    assert caplog.records == []


def test_a_name_with_quotes_and_other_fields_are_read() -> None:
    with Upload(f'Multipart/Form-Data; charset=utf-8; boundary="{BOUNDARY}"', SUFFIXES) as upload:
        upload.write(form('a \\"b\\".mp3', b"\r\n--x"))
        upload.finish()
        assert (upload.name, upload.path.read_bytes()) == ('a "b".mp3', b"\r\n--x")
    assert not upload.path.exists()
    with Upload("multipart/form-data; boundary=x", SUFFIXES) as upload:
        upload.write(b"--x--")
        with pytest.raises(RefusedAudioError) as caught:
            upload.finish()
    assert caught.value.status == 400


def test_a_service_without_a_bundle_or_with_one_of_other_features_says_so(tmp_path: Path) -> None:
    status, answer = post(ModelService(tmp_path, NAME), form("a.wav", b"x"))
    assert (status, answer["bundle"]) == (503, None)
    other = service_of(tmp_path / "other", BundleDetails(feature_names=("tempo", "loudness")))
    status, answer = post(other, form("a.wav", b"x"))
    assert status == 503
    assert "features that cannot be measured from audio: tempo, loudness" in answer["detail"][0]["msg"]


def test_a_pretrained_bundle_answers_as_predict_does_and_says_what_it_lacks(
    musicnn_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    details = BundleDetails(feature_names=MUSICNN50.features, feature_set=MUSICNN50.build_reference(3.0))
    pretrained = service_of(tmp_path / "pretrained", details)
    path = write(tmp_path / "a.ogg", music(7.0, 44_100), 44_100)
    body = form("a.ogg", path.read_bytes())
    status, answer = post(pretrained, body)
    assert status == 200, answer
    assert list(answer["features"]) == list(MUSICNN50.features)
    bundle = read_bundle(pretrained.folder)
    recipe = build_audio_recipe(bundle.metadata, bundle.feature_names)
    predictor = wrap_bundle(bundle, GenreClassifier)
    song = predict_song(predictor, recipe, path, recipe.windows)
    assert song.starts.tolist() == [0.0, 3.0]
    expected = build_song_answer(predictor, song, return_probs=True)
    assert answer["prediction"]["all_probabilities"] == pytest.approx(expected["all_probabilities"], abs=1e-5)
    # Removed under a running service: the process that measures finds none, and then the service itself.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    spawn = multiprocessing.get_context("spawn")  # with the environment of now
    monkeypatch.setattr(apart, "_get_context", lambda name: spawn)
    for _ in range(2):
        status, answer = post(pretrained, body)
        assert status == 503
        assert "run once: genre-classifier download musicnn" in answer["detail"][0]["msg"]
        load_weights.cache_clear()


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(60.0))
    with pytest.raises(AudioError, match=r"a\.wav takes more than 0 s to measure"):
        measure_apart(path, "core20", Excerpt(), replace(Limits(), seconds=0.0))


def test_a_process_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(30.0))
    with pytest.raises(AudioError, match=r"needs more than 1,000,000 bytes of memory|crashed the process"):
        measure_apart(path, "core20", Excerpt(), Limits(memory=1_000_000))


def test_a_process_that_dies_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    # Nothing of that name can be measured, which ends the process with an exception of another kind.
    with pytest.raises(AudioError, match=r"a\.wav crashed the process that decoded it"):
        measure_apart(write(tmp_path / "a.wav"), "no such set", Excerpt(), Limits())


def test_what_is_measured_apart_is_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ogg", music(4.0))
    excerpt = Excerpt(duration=None, window=2.0)
    here, there = measure_file(path, "core20", excerpt), measure_apart(path, "core20", excerpt, Limits())
    np.testing.assert_array_equal(here.features, there.features)
    assert (here.seconds, here.starts.tolist()) == (there.seconds, there.starts.tolist())


def test_where_processes_cannot_be_forked_they_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    assert apart._get_context.__wrapped__("core20").get_start_method() == "spawn"


def test_the_path_is_documented(service: ModelService) -> None:
    documented = GenreService(service).openapi()["paths"]["/analyze-audio"]["post"]
    assert "multipart/form-data" in documented["requestBody"]["content"]
    assert {"400", "413", "422", "503"} <= documented["responses"].keys()
    (parameter,) = documented["parameters"]
    assert (parameter["name"], parameter["in"]) == ("over_time", "query")
    answer = documented["responses"]["200"]["content"]["application/json"]["schema"]
    assert list(answer["properties"]) == ["filename", "duration", "features", "prediction", "over_time"]
    assert "over_time" not in answer["required"]
