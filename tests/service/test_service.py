from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest

from genre_classifier import ModelWrapper
from genre_classifier.bundle.format import read_bundle
from genre_classifier.bundle.writing import write_bundle
from genre_classifier.errors import BundleError
from genre_classifier.service import model as service_model
from genre_classifier.service.application import GenreService
from genre_classifier.service.endpoints import MAX_BODY_BYTES
from genre_classifier.service.model import ModelService
from genre_classifier.service.requests import MAX_ROWS
from tests.conftest import ROOT
from tests.example_models import FEATURES, GENRES, METRICS
from tests.service.serving import DETAILS, EXPECTED, MODELS, NAME, ROWS, SCALER, WAYS, Client, export, served


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    export(folder)
    return folder


@pytest.fixture(scope="module", params=WAYS)
def port(folder, request) -> Iterator[int]:
    with served(ModelService(folder, NAME), request.param) as port:
        yield port


@pytest.fixture
def client(port) -> Iterator[Client]:
    with Client(port) as client:
        yield client


def test_a_prediction_over_http_is_modelwrappers_answer_and_names_the_bundle(client, folder):
    wrapper = ModelWrapper(MODELS[0], SCALER, GENRES, feature_names=FEATURES)
    digest = read_bundle(folder).digest
    for row in ROWS[:10].tolist():
        by_name = dict(zip(FEATURES[::-1], row[::-1], strict=True))
        for features in (row, by_name):
            status, answer = client.ask(
                "POST", "/predict", {"features": features, "return_probs": True, "top_k": 2}
            )
            assert status == 200
            assert answer.pop("bundle") == digest
            assert answer.pop("outside_training_range") is False
            assert answer.pop("unusual_features") == []
            expected = wrapper.predict(row, return_probs=True, top_k=2)
            assert answer.keys() == expected.keys()
            assert answer["predicted_genre"] == expected["predicted_genre"]
            assert [top["genre"] for top in answer["top_predictions"]] == [
                top["genre"] for top in expected["top_predictions"]
            ]
            assert answer["all_probabilities"] == pytest.approx(expected["all_probabilities"], abs=1e-6)


def test_a_batch_answers_row_by_row(client, folder):
    rows = [*ROWS[:3].tolist(), dict(zip(FEATURES, ROWS[3].tolist(), strict=True))]
    status, answer = client.ask("POST", "/predict/batch", {"features": rows})
    assert status == 200
    assert answer["bundle"] == read_bundle(folder).digest
    assert [p["predicted_index"] for p in answer["predictions"]] == EXPECTED[0][:4].argmax(1).tolist()
    assert client.ask("POST", "/predict/batch", {"features": []}) == (
        200,
        {"predictions": [], "bundle": answer["bundle"]},
    )


def test_a_large_batch_is_answered_in_full(client):
    rows = ROWS.tolist() * 20
    status, answer = client.ask(
        "POST", "/predict/batch", {"features": rows, "return_probs": True, "top_k": 1}
    )
    assert status == 200
    found = [[p["all_probabilities"][genre] for genre in GENRES] for p in answer["predictions"]]
    assert np.abs(np.array(found) - np.tile(EXPECTED[0], (20, 1))).max() < 1e-6


def test_the_model_says_what_it_is(client, folder):
    digest = read_bundle(folder).digest
    assert client.ask("GET", "/health") == (
        200,
        {"status": "ok", "backend": "numpy", "problem": None, "bundle": digest},
    )
    assert client.ask("GET", "/genres") == (200, {"genres": GENRES, "bundle": digest})
    status, described = client.ask("GET", "/model")
    assert status == 200
    assert described["model_name"] == NAME
    assert described["metrics"] == METRICS
    assert described["features"] == list(FEATURES)
    assert described["split_protocol"] == "grouped by artist"
    assert described["library_versions"]["numpy"] == np.__version__
    assert described["bundle"] == digest
    assert described["genres"] == GENRES
    assert (described["data"], described["evaluation"]) == (None, None)
    assert described["songs"]["refused_because"] is None
    assert described["songs"]["most_bytes"] == 50 * 2**20
    assert ".mp3" in described["songs"]["suffixes"]


def test_the_documentation_has_an_example_of_every_request_and_they_work(client):
    status, document = client.ask("GET", "/openapi.json")
    assert status == 200
    assert set(document["paths"]) == {
        "/predict",
        "/predict/batch",
        "/analyze-audio",
        "/health",
        "/genres",
        "/model",
    }
    n_examples = 0
    for path in ("/predict", "/predict/batch"):
        operation = document["paths"][path]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        assert "$ref" not in json.dumps(content["schema"])
        for example in content["examples"].values():
            status, answer = client.ask("POST", path, example["value"])
            assert status == 200
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            assert answer.keys() <= schema["properties"].keys()
            n_examples += 1
    assert n_examples == 3


def changed(position, value):
    row = ROWS[0].tolist()
    row[position] = value
    return row


def raw(features: str) -> bytes:
    return b'{"features": ' + features.encode() + b"}"


GOOD = json.dumps(ROWS[0].tolist())


@pytest.mark.parametrize(
    ("body", "location", "message"),
    [
        ({"features": changed(3, float("nan"))}, ["body", "features", 3], "a finite number, found nan"),
        ({"features": changed(3, float("inf"))}, ["body", "features", 3], "found inf"),
        (raw("[1e999" + ",1" * 19 + "]"), ["body", "features", 0], "found inf"),
        (raw("[" + "9" * 400 + ",1" * 19 + "]"), ["body", "features", 0], "beyond the range of float64"),
        ({"features": changed(5, True)}, ["body", "features", 5], "found a boolean"),
        ({"features": changed(5, "3")}, ["body", "features", 5], "found a string"),
        ({"features": changed(5, None)}, ["body", "features", 5], "found null"),
        ({"features": changed(5, [1])}, ["body", "features", 5], "found a list"),
        ({"features": changed(5, 1e300)}, ["body", "features", "mfcc_6"], "answer is not a finite"),
        ({"features": ROWS[0].tolist()[:19]}, ["body", "features"], "expected 20 features, found 19"),
        ({"features": []}, ["body", "features"], "expected 20 features, found 0"),
        ({"features": 3}, ["body", "features"], "expected a list of numbers"),
        ({"features": {"mfcc_1": "x"}}, ["body", "features", "mfcc_1"], "found a string"),
        (raw('{"mfcc_1": NaN}'), ["body", "features", "mfcc_1"], "found nan"),
        ({"features": {"mfcc_1": 1}}, ["body", "features", "mfcc_2"], "missing feature 'mfcc_2'"),
        ({"features": dict.fromkeys((*FEATURES, "tempo"), 1)}, ["body", "features", "tempo"], "unknown"),
        ({}, ["body", "features"], "missing field"),
        ({"features": ROWS[0].tolist(), "topk": 3}, ["body", "topk"], "unknown field"),
        ({"features": ROWS[0].tolist(), "top_k": 0}, ["body", "top_k"], "expected 1 to 8"),
        ({"features": ROWS[0].tolist(), "top_k": 9}, ["body", "top_k"], "top_k=9: expected 1 to 8"),
        ({"features": ROWS[0].tolist(), "top_k": True}, ["body", "top_k"], "found a boolean"),
        ({"features": ROWS[0].tolist(), "top_k": 2.5}, ["body", "top_k"], "expected a whole number"),
        ({"features": ROWS[0].tolist(), "return_probs": 1}, ["body", "return_probs"], "true or false"),
        ([1, 2], ["body"], "expected an object with the field features, found a list"),
        (b"", ["body"], "not readable as JSON"),
        (b"{", ["body"], "not readable as JSON"),
        (b"\xff\xfe", ["body"], "not readable as JSON"),
        (b"[" * 100_000, ["body"], "not readable as JSON"),
        (raw("[" * 100_000), ["body"], "not readable as JSON"),
        (raw(GOOD) + b"x", ["body"], "not readable as JSON"),
    ],
)  # fmt: skip
def test_a_wrong_body_is_422_with_the_field_named(client, folder, body, location, message):
    status, answer = client.ask("POST", "/predict", body)
    assert status == 422
    assert answer["detail"][0]["loc"] == location
    assert message in answer["detail"][0]["msg"]
    assert answer["bundle"] == read_bundle(folder).digest


@pytest.mark.parametrize(
    ("features", "location"),
    [
        ([ROWS[0].tolist(), changed(3, "x")], ["body", "features", 1, 3]),
        ([ROWS[0].tolist(), changed(3, float("nan"))], ["body", "features", 1, 3]),
        ([ROWS[0].tolist(), [1.0]], ["body", "features", 1]),
        ([ROWS[0].tolist(), {"mfcc_1": 2}], ["body", "features", 1, "mfcc_2"]),
        ([ROWS[0].tolist(), changed(3, 1e300)], ["body", "features", 1, "mfcc_4"]),
        (ROWS[0].tolist(), ["body", "features", 0]),
        ("x", ["body", "features"]),
        ([[1.0]] * (MAX_ROWS + 1), ["body", "features"]),
    ],
)
def test_a_wrong_batch_is_422_with_the_row_named(client, features, location):
    status, answer = client.ask("POST", "/predict/batch", {"features": features})
    assert status == 422
    assert answer["detail"][0]["loc"] == location


def test_a_value_far_outside_training_is_flagged(client):
    status, answer = client.ask("POST", "/predict", {"features": changed(3, 1e30)})
    assert status == 200
    assert answer["outside_training_range"] is True
    assert answer["unusual_features"] == ["mfcc_4"]
    rows = [ROWS[0].tolist(), changed(3, -1e30)]
    _, answer = client.ask("POST", "/predict/batch", {"features": rows})
    assert [p["unusual_features"] for p in answer["predictions"]] == [[], ["mfcc_4"]]


def test_unknown_paths_and_methods_name_the_bundle_too(client, folder):
    digest = read_bundle(folder).digest
    status, answer = client.ask("GET", "/nothing")
    assert (status, answer["bundle"]) == (404, digest)
    status, answer = client.ask("GET", "/predict")
    assert (status, answer["bundle"]) == (405, digest)


def test_a_body_above_the_limit_is_413_and_the_service_goes_on(client):
    for headers in ({}, {"Transfer-Encoding": "chunked"}):
        body = iter([b"x" * 2**20] * 100) if headers else b"x" * (100 * 2**20)
        client.connection.request("POST", "/predict", body, headers, encode_chunked=bool(headers))
        response = client.connection.getresponse()
        assert response.status == 413
        assert f"{MAX_BODY_BYTES:,} bytes" in json.loads(response.read())["detail"][0]["msg"]
        assert client.ask("POST", "/predict", {"features": ROWS[0].tolist()})[0] == 200


def test_dropped_connections_and_nonsense_leave_it_answering(port, client):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    for message in (
        b"",
        b"\x00\xff" * 50,
        b"GET",
        head,
        head + b'{"features"',
        head[:30],
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(message)
    assert client.ask("POST", "/predict", {"features": ROWS[0].tolist()})[0] == 200


def test_two_thousand_fuzzed_bodies_give_no_server_error(client):
    generator = np.random.default_rng(11)
    seeds = [raw(GOOD), raw(f"[{GOOD}, {GOOD}]"), raw('{"mfcc_1": 1.5}'), raw(GOOD)[:-1] + b', "top_k": 3}']
    scraps = [
        b"NaN",
        b"1e999",
        b"true",
        b"null",
        b'"3"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"-",
        b"\x00",
        b"\xc3",
        b"1e308",
    ]
    statuses: dict[int, int] = {}
    for number in range(2000):
        body = bytearray(seeds[number % len(seeds)])
        for _ in range(int(generator.integers(1, 5))):
            at = int(generator.integers(0, len(body) + 1))
            if generator.random() < 0.5:
                body[at:at] = scraps[int(generator.integers(0, len(scraps)))]
            else:
                del body[at : at + int(generator.integers(1, 12))]
        status, answer = client.ask("POST", ("/predict", "/predict/batch")[number % 3 == 0], bytes(body))
        statuses[status] = statuses.get(status, 0) + 1
        assert status == 200 or answer["detail"][0]["msg"]
    assert set(statuses) == {200, 422}


@pytest.mark.parametrize("way", WAYS)
def test_without_a_bundle_it_starts_and_says_so(tmp_path, way):
    service = ModelService(tmp_path, NAME)
    with served(service, way) as port, Client(port) as client:
        for method, path in (("GET", "/health"), ("GET", "/genres"), ("GET", "/model"), ("POST", "/predict")):
            status, answer = client.ask(
                method, path, {"features": ROWS[0].tolist()} if method == "POST" else None
            )
            assert status == 503
            assert "no such file" in answer["detail"][0]["msg"]
            assert answer["bundle"] is None
        assert client.ask("POST", "/predict/batch", {"features": []})[0] == 503
        digest = export(tmp_path)
        service.refresh()
        assert client.ask("GET", "/health")[1]["bundle"] == digest
    with pytest.raises(BundleError, match="no such file"):
        ModelService(tmp_path, "other").predict(ROWS[0])


def test_a_damaged_newer_bundle_leaves_the_old_one_in_service(tmp_path, caplog):
    digest = export(tmp_path)
    service = ModelService(tmp_path, NAME)
    with served(service) as port, Client(port) as client:
        (tmp_path / f"{NAME}_metadata.json").unlink()
        (tmp_path / f"{NAME}_metadata.json").write_text("{}")
        with caplog.at_level(logging.ERROR):
            assert service.refresh() is False
        status, answer = client.ask("GET", "/health")
        assert (status, answer["bundle"]) == (200, digest)
        assert "lacks the key" in answer["problem"]
        assert client.ask("POST", "/predict", {"features": ROWS[0].tolist()})[1]["bundle"] == digest
    assert "cannot serve the bundle" in caplog.text


@pytest.mark.parametrize("way", WAYS)
def test_replacing_the_bundle_drops_no_request_and_mixes_no_answer(tmp_path, way, monkeypatch):
    monkeypatch.setattr(service_model, "WATCH_SECONDS", 0.01)
    expected = {export(tmp_path, 1): EXPECTED[1], export(tmp_path, 0): EXPECTED[0]}
    digests = {0: read_bundle(tmp_path).digest}
    service = ModelService(tmp_path, NAME)
    problems: list[object] = []
    seen: set[str] = set()
    finished = threading.Event()

    def hammer(client: Client, seed: int) -> None:
        generator = np.random.default_rng(seed)
        try:
            while not finished.is_set():
                row = int(generator.integers(0, len(ROWS)))
                status, answer = client.ask(
                    "POST", "/predict", {"features": ROWS[row].tolist(), "return_probs": True}
                )
                found = [answer["all_probabilities"][genre] for genre in GENRES]
                difference = np.abs(np.array(found) - expected[answer["bundle"]][row]).max()
                seen.add(answer["bundle"])
                if status != 200 or difference > 1e-6:
                    problems.append((status, answer))
        except Exception as error:
            problems.append(error)

    with served(service, way) as port, ExitStack() as stack:
        connections = [stack.enter_context(Client(port)) for _ in range(5)]
        watched = connections.pop()
        clients = [
            threading.Thread(target=hammer, args=pair) for pair in zip(connections, range(4), strict=True)
        ]
        for thread in clients:
            thread.start()
        for number in (1, 0, 1, 0):

            def remember(found, number=number):
                expected[found.digest] = EXPECTED[number]
                digests[number] = found.digest

            write_bundle(MODELS[number], SCALER, GENRES, METRICS, tmp_path, details=DETAILS, verify=remember)
            for _ in range(20_000):
                if watched.ask("GET", "/health")[1]["bundle"] == digests[number]:
                    break
            else:
                pytest.fail("the newer bundle was never served")
        finished.set()
        for thread in clients:
            thread.join()
    assert problems == []
    assert len(seen) >= 2


@pytest.mark.parametrize("onnx", [True, False])
def test_the_service_answers_as_torch_does(tmp_path, onnx):
    from genre_classifier.bundle.format import wrap_bundle
    from genre_classifier.network import GenreClassifier

    export(tmp_path, onnx=onnx)
    service = ModelService(tmp_path, NAME)
    service.refresh()
    assert service.served.predictor.backend == "numpy"
    wrapper = wrap_bundle(read_bundle(tmp_path, NAME), GenreClassifier)
    for row in ROWS.tolist():
        one, other = (each.predict(row, return_probs=True) for each in (service, wrapper))
        assert one["predicted_index"] == other["predicted_index"]
        assert one["all_probabilities"] == pytest.approx(other["all_probabilities"], abs=1e-6)


def test_the_service_can_be_mounted_under_a_longer_path(folder):
    from fastapi import FastAPI

    service = ModelService(folder, NAME)
    service.refresh()
    outer = FastAPI()
    outer.mount("/genres-api", GenreService(service))

    async def ask(method: str, path: str, body: bytes) -> tuple[int, dict]:
        transport = httpx.ASGITransport(outer)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            response = await client.request(method, path, content=body)
            return response.status_code, response.json()

    status, answer = asyncio.run(ask("POST", "/genres-api/predict", raw(GOOD)))
    assert (status, answer["predicted_index"]) == (200, EXPECTED[0][0].argmax())
    assert asyncio.run(ask("GET", "/genres-api/genres", b""))[1]["genres"] == GENRES
    assert asyncio.run(ask("POST", "/genres-api/predict", b"{"))[0] == 422

    async def ask_for_files() -> list[int]:
        transport = httpx.ASGITransport(outer)
        async with httpx.AsyncClient(transport=transport, base_url="http://x/genres-api/") as client:
            page = (await client.get("")).text
            linked = re.findall(r'(?:href|src)="([a-z][^"]+)"', page)
            return [(await client.get(path)).status_code for path in (*linked, "swagger/swagger-ui.css")]

    assert asyncio.run(ask_for_files()) == [200] * 6


@pytest.mark.parametrize("way", WAYS)
def test_an_error_inside_shows_no_stack_trace(folder, way, monkeypatch, caplog):
    service = ModelService(folder, NAME)
    with served(service, way) as port, Client(port) as client:
        monkeypatch.setattr(service_model.ServedModel, "answer", lambda *_: 1 / 0)
        with caplog.at_level(logging.ERROR):
            status, answer = client.ask("POST", "/predict", {"features": ROWS[0].tolist()})
    assert status == 500
    assert answer["detail"] == [{"loc": [], "msg": "internal error; the service's log has the reason"}]
    assert "ZeroDivisionError" in caplog.text


def test_the_top_level_app_is_a_shim_that_no_installation_holds():
    import app.main
    import app.model
    from genre_classifier.service import application

    assert app.main.app is application.app
    assert app.model.model_service is service_model.model_service is application.app.endpoints.service
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["only-include"] == ["src/genre_classifier", "src/hydra_plugins", "conf"]
    assert not (ROOT / "src" / "app").exists()
    assert sorted(path.name for path in (ROOT / "app").glob("*.py")) == ["main.py", "model.py"]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False,
        env=os.environ | environment, cwd=ROOT,
    )  # fmt: skip


def test_neither_torch_nor_scikit_learn_is_imported(folder):
    code = (
        "import json, sys; from app.model import model_service;"
        f"print(model_service.predict({GOOD})['predicted_index']);"
        "import app.main;"
        "assert not {'torch', 'sklearn', 'pandas', 'scipy'} & sys.modules.keys()"
    )
    done = run_python(code, MODEL_DIR=str(folder), MODEL_NAME=NAME)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == EXPECTED[0][0].argmax()
