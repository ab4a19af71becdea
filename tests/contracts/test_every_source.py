"""Every data source states where it comes from, reads a small table of its real layout, and refuses a bad one."""

import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genre_classifier.config.schema import (
    AudioFolderConfig,
    DataConfig,
    DemoConfig,
    FmaConfig,
    GtzanConfig,
    SplitConfig,
    SplitMethod,
    TableConfig,
    list_data_settings,
)
from genre_classifier.data.sources import SOURCES, read
from genre_classifier.data.splits import make_split
from genre_classifier.data.table import build_table
from genre_classifier.errors import DataError, SplitError
from genre_classifier.features.sets import CORE20, GTZAN57
from tests.conftest import ROOT, composed, rows_of_music, write_csv
from tests.data.fma_layout import write_fma


def small(name: str, folder: Path) -> DataConfig:
    """A configuration of the source on a table of its real layout."""
    if name == "demo":
        return DemoConfig()
    if name == "audio_folder":
        from tests.features.sounds import collection  # skips where the extra audio is not installed

        root = collection(folder / "music", n_tracks=3)
        return AudioFolderConfig(path=str(root), jobs=1, cache=str(folder / "features.sqlite"))
    if name == "fma":
        write_fma(folder / "fma_metadata")
        return FmaConfig(path=str(folder / "fma_metadata"))
    if name == "table":
        path = write_csv(folder / "t.csv", *rows_of_music())
        return TableConfig(path=str(path), label="genre", group="artist", id="track")
    if name == "gtzan":
        rng = np.random.default_rng(0)
        tracks = [f"{genre}.{number:05d}.wav" for genre in ("blues", "rock") for number in range(6)]
        rows = [[track, 661794, *rng.normal(size=57), track.partition(".")[0]] for track in tracks]
        path = write_csv(folder / "g.csv", ["filename", "length", *GTZAN57.features, "label"], rows)
        return GtzanConfig(path=str(path))
    raise AssertionError(f"source {name} has no small table here: add one")


def test_every_module_is_a_source_and_has_its_options_file() -> None:
    folder = ROOT / "src" / "genre_classifier" / "data" / "sources"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(SOURCES)
    options = {path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")}
    assert options >= set(SOURCES)
    for option in options - set(SOURCES):  # a source with other defaults
        assert composed(f"data={option}", "data.path=x").data.source in SOURCES


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_states_origin_licence_and_citation(name: str) -> None:
    source = import_module(f"genre_classifier.data.sources.{name}").SOURCE
    assert source.name == name
    for text in (source.origin, source.licence, source.citation):
        assert len(text) > 10


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_reads_its_layout_into_a_table_that_splits(name: str, tmp_path: Path) -> None:
    table = read(small(name, tmp_path))
    assert table.source.name == name
    assert table.features.flags.c_contiguous
    assert len(set(table.ids)) == len(table)
    split = make_split(table, SplitConfig())
    assert split.protocol.name == ("grouped" if table.groups is not None else "stratified")
    described = table.description()
    assert described["rows"] == len(table)
    assert described["fingerprint"] == read(small(name, tmp_path)).fingerprint


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "demo"])
def test_a_source_names_a_missing_file(name: str, tmp_path: Path) -> None:
    config: Any = small(name, tmp_path)
    config.path = str(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"absent\.csv.*: (there is no such file|No such file)"):
        read(config)


@pytest.mark.parametrize("name", SOURCES)
def test_advice_names_only_settings_that_the_source_has(name: str, tmp_path: Path) -> None:
    table = read(small(name, tmp_path))
    ungrouped = replace(table, groups=None, group_name=None)
    sides = np.array(["train", "test"] * len(table), dtype=object)[: len(table)]
    shared = replace(table, given_split=sides, groups=np.full(len(table), "one", dtype=object))
    messages = []
    for made, config in (
        (ungrouped, SplitConfig(method=SplitMethod.grouped)),
        (table, SplitConfig(method=SplitMethod.given)),
        (shared, SplitConfig(column="split")),
        (table, SplitConfig(folds=1000, fold=0)),
    ):
        with pytest.raises(SplitError) as caught:
            make_split(made, config)
        messages.append(str(caught.value))
    features = table.features.copy()
    features[1, 1] = np.nan
    with pytest.raises(DataError) as refused:
        build_table(
            features=features,
            labels=table.ids,
            feature_names=table.feature_names,
            ids=table.ids,
            source=table.source,
            where="here",
        )
    for message in (*messages, str(refused.value)):
        named = set(re.findall(r"\bdata\.([a-z_]+)", message))
        assert named <= list_data_settings(name), message
    assert ("data.group" in messages[2]) == (name in {"fma", "table"})


def test_the_demo_is_core20_labelled_synthetic_with_artists_as_groups() -> None:
    table = read(DemoConfig())
    assert table.source.synthetic
    assert table.feature_set is CORE20
    assert table.group_name == "artist"
    assert table.genre_names == (
        "Rock",
        "Electronic",
        "Hip-Hop",
        "Classical",
        "Jazz",
        "Folk",
        "Pop",
        "Experimental",
    )
    with pytest.raises(DataError, match="the demo table has no split column"):
        read(DemoConfig(split=SplitConfig(column="split")))
