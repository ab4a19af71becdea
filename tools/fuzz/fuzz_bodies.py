"""JSON bodies: 200 or 422 and JSON, whatever the bytes, and the same whether they are read whole or row by row."""

import json
import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["genre_classifier.service"]):
    from genre_classifier.service import requests
    from genre_classifier.service.endpoints import Endpoints
    from genre_classifier.service.model import ModelService
    from tests.service.serving import NAME, ROWS, export

logging.disable()
FOLDER = tempfile.TemporaryDirectory()
export(Path(FOLDER.name))
ENDPOINTS = Endpoints(ModelService(FOLDER.name, NAME))
ENDPOINTS.service.refresh()
PATHS = ("/predict", "/predict/batch")
ROW = json.dumps([round(value, 2) for value in ROWS[0].tolist()])
SEEDS = [
    f'\0{{"features":{ROW},"top_k":3}}'.encode(),
    f'\1{{"features":[{ROW},{{"mfcc_1":1e300}}],"return_probs":true}}'.encode(),
    b'\1{"features":[{"\\ud800":NaN}],"x":1}',
]


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Begin from a real body now and then."""
    return atheris.Mutate(SEEDS[seed % len(SEEDS)] if seed % 16 < 2 else data, size)


def test_one(data: bytes) -> None:
    """Ask with one body twice."""
    endpoint = ENDPOINTS.paths["POST", PATHS[data[:1] == b"\1"]]
    statuses = []
    for requests.WHOLE_BYTES in (2**18, 8):
        status, content = ENDPOINTS.answer(endpoint, data[1:])
        answer = json.loads(content)
        assert status == 200 or (status == 422 and answer["detail"][0]["msg"]), (status, answer)
        statuses.append(status)
    assert statuses[0] == statuses[1], statuses


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-max_len=2048"], test_one, custom_mutator=mutate)
    atheris.Fuzz()
