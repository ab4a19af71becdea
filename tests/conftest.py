"""What the tests share: small tables written on the spot, composed configurations, short runs."""

from __future__ import annotations

import csv
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from genre_classifier.config.schema import register_schemas
from genre_classifier.errors import MissingWeightsError
from genre_classifier.features.pretrained.weights import fetch_weights
from genre_classifier.machine.cache_folders import find_cache_folder

ROOT = Path(__file__).resolve().parents[1]
GTZAN = ROOT.parent / "shared" / "data" / "gtzan"
GENRES = ("Ambient", "Bluegrass", "Cumbia")

register_schemas()

if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    # A shell's background job ignores Ctrl-C, and so would the commands that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def musicnn_weights() -> Path:
    """Fetch the weights of musicnn once into the user's cache; skip where the registry cannot be reached."""
    pytest.importorskip("safetensors", reason="needs the extra audio")
    folder = find_cache_folder()
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "musicnn-tests.lock"):
        try:
            return fetch_weights()
        except MissingWeightsError as error:
            if "pip cannot download" not in str(error):
                raise
            pytest.skip(str(error))


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    """Write a CSV file and return its path."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def rows_of_music(
    n_artists: int = 6, n_tracks: int = 5, n_features: int = 4, genres: Sequence[str] = GENRES, seed: int = 0
) -> tuple[list[str], list[list[Any]]]:
    """Return the header and rows of a table in which a genre shifts every feature, an artist a little."""
    rng = np.random.default_rng(seed)
    header = ["track", "genre", "artist", *(f"f{i}" for i in range(n_features))]
    rows: list[list[Any]] = []
    for number, genre in enumerate(genres):
        centre = rng.normal(size=n_features) * 2 + number
        for artist in range(n_artists):
            shift = rng.normal(size=n_features) * 0.5
            for track in range(n_tracks):
                values = centre + shift + rng.normal(size=n_features)
                name = f"{genre}-{artist}"
                rows.append([f"{name}-{track}", genre, name, *(round(float(v), 6) for v in values)])
    return header, rows


@pytest.fixture(scope="session")
def music_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 rows, 3 genres, 6 artists a genre, 4 features."""
    header, rows = rows_of_music()
    return write_csv(tmp_path_factory.mktemp("music") / "music.csv", header, rows)


@pytest.fixture(scope="session")
def music_overrides(music_csv: Path) -> list[str]:
    """Overrides that train on `music_csv`, shortly and silently."""
    return [
        "data=table",
        f"data.path={music_csv}",
        "data.label=genre",
        "data.group=artist",
        "data.id=track",
        "data.batch_size=16",
        "trainer.max_epochs=3",
        "trainer.enable_progress_bar=false",
        "logger=none",
    ]


def composed(*overrides: str, config: str = "train") -> DictConfig:
    """Compose a configuration as the command line would, without Hydra's own node.

    What the chosen groups amount to is composed once; values are then set by Hydra's own function, as it would do.
    """
    values, groups = [], []
    for override in map(_parsed, overrides):
        (groups if (ROOT / "conf" / override.key_or_group).is_dir() else values).append(override)
    cfg = _of_groups(config, tuple(str(override.input_line) for override in groups)).copy()
    ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
    return cfg


@cache
def _of_groups(config: str, overrides: tuple[str, ...]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(config, overrides=list(overrides))


@cache
def _parsed(text: str) -> Override:
    (override,) = OverridesParser.create().parse_overrides([text])
    return override


@pytest.fixture
def trained(tmp_path: Path, music_overrides: list[str]) -> Callable[..., Any]:
    """A function that trains with the given overrides on top of `music_overrides` and returns the Result."""
    from genre_classifier.training.fit import train

    number = 0

    def go(*overrides: str, name: str | None = None) -> Any:
        nonlocal number
        number += 1
        folder = tmp_path / (name or f"run{number}")
        return train(composed(*music_overrides, f"run_dir={folder}", *overrides))

    return go


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of synced versions take a disk a minute."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)
