"""FMA's tables are read as published, with all their quirks, and kept as Parquet."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genre_classifier.config.schema import FmaConfig, FmaGroup, FmaSubset, SplitConfig, SplitMethod
from genre_classifier.data.sources import read
from genre_classifier.data.splits import make_split
from genre_classifier.data.tables import fma_tables
from genre_classifier.data.tables.fma_tables import ARCHIVE, CACHE
from genre_classifier.errors import ConfigError, DataError
from genre_classifier.features.sets import FMA518
from tests.conftest import composed
from tests.data.fma_layout import make_tracks, write_fma

OFFICIAL = SplitConfig(method=SplitMethod.given, column="split")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "fma_metadata"


def config(folder: Path, **changes) -> FmaConfig:
    return FmaConfig(path=str(folder), split=OFFICIAL, **changes)


@pytest.mark.parametrize("subset", FmaSubset)
def test_a_subset_is_at_most_its_size_and_has_top_genres(
    subset: FmaSubset, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    features, tracks = write_fma(folder)
    sizes = ["small", "medium", "large"][: list(FmaSubset).index(subset) + 1]
    inside = tracks["set", "subset"].isin(sizes)
    kept = tracks[inside & tracks["track", "genre_top"].notna()]
    table = read(config(folder, subset=subset))
    assert table.ids.tolist() == [str(track) for track in kept.index]
    assert [table.genre_names[genre] for genre in table.genres] == kept["track", "genre_top"].tolist()
    np.testing.assert_allclose(table.features, features.loc[kept.index].to_numpy(), rtol=1e-6)
    assert table.feature_names == FMA518.features
    assert table.groups is not None
    assert table.groups.tolist() == kept["artist", "id"].astype(str).tolist()
    dropped = f"15 of the {inside.sum()} tracks of subset large have no top genre and are left out"
    assert (dropped in caplog.text) == (subset is FmaSubset.large)


def test_the_official_split_is_the_default(folder: Path) -> None:
    _, tracks = write_fma(folder)
    settings = composed("data=fma", f"data.path={folder}", "run_dir=x").data.split
    assert (settings.method, settings.column) == (SplitMethod.given, "split")
    table = read(config(folder))
    split = make_split(table, OFFICIAL)
    said = tracks["set", "split"]
    for side, name in (("train", "training"), ("val", "validation"), ("test", "test")):
        assert {said[int(table.ids[row])] for row in split.sides()[side]} == {name}
    assert split.protocol.groups_disjoint is True


def test_the_album_or_nothing_can_be_the_group(folder: Path) -> None:
    _, tracks = write_fma(folder)
    table = read(config(folder, group=FmaGroup.album))
    assert table.group_name == "album"
    assert table.groups is not None
    assert table.groups.tolist() == [str(tracks["album", "id"][int(track)]) for track in table.ids]
    assert read(config(folder, group=None)).groups is None


def test_feature_groups_select_in_the_tables_order(folder: Path) -> None:
    features, _ = write_fma(folder)
    table = read(config(folder, feature_groups=["zcr", "mfcc"]))
    assert table.feature_names == tuple(
        name for name in FMA518.features if name.startswith("mfcc_") or name.startswith("zcr_")
    )
    assert len(table.feature_names) == 7 * 21
    row = features.loc[int(table.ids[4])]
    assert table.features[4, 0] == pytest.approx(row["mfcc", "kurtosis", "01"], rel=1e-6)
    assert table.features[4, -1] == pytest.approx(row["zcr", "std", "01"], rel=1e-6)


def test_spectral_contrast_is_not_taken_for_another_series(folder: Path) -> None:
    write_fma(folder)
    names = read(config(folder, feature_groups=["spectral_contrast"])).feature_names
    assert len(names) == 49
    assert {name.rsplit("_", 2)[0] for name in names} == {"spectral_contrast"}


def test_an_unknown_feature_group_is_refused_before_anything_is_read(folder: Path) -> None:
    message = r"data\.feature_groups names loudness: expected one or more of chroma_cens, chroma_cqt"
    with pytest.raises(DataError, match=message):
        read(config(folder, feature_groups=["mfcc", "loudness"]))
    from genre_classifier.config.checks import check

    overrides = ("data=fma", "data.path=x", "run_dir=x")
    with pytest.raises(ConfigError, match=message):
        check(composed(*overrides, "data.feature_groups=[mfcc,loudness]"))
    with pytest.raises(ConfigError, match="names nothing: expected one or more"):
        check(composed(*overrides, "data.feature_groups=[]"))
    check(composed(*overrides, "data.feature_groups=[mfcc,spectral_contrast]"))


def test_a_second_reading_uses_the_kept_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fma(folder)
    first = read(config(folder))
    assert (folder / CACHE).is_file()
    monkeypatch.setattr(fma_tables, "_write", None)
    assert read(config(folder)).fingerprint == first.fingerprint


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), PermissionError(errno.EACCES, "Permission denied")],
)
def test_a_cache_that_cannot_be_written_is_one_error(
    folder: Path, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    write_fma(folder)
    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", fail)
    with pytest.raises(
        DataError, match=rf"cannot be written \({error.strerror}\); copy features.csv and tracks.csv to"
    ):
        read(config(folder))
    assert not list(folder.glob("*.parquet*"))


def test_a_damaged_cache_is_named_with_what_to_do(folder: Path) -> None:
    write_fma(folder)
    read(config(folder))
    cache = folder / CACHE
    content = bytearray(cache.read_bytes())
    content[10:200] = b"\xff" * 190
    cache.write_bytes(content)
    with pytest.raises(
        DataError, match=rf"{CACHE} is damaged: .*; {CACHE} is made from the two tables: remove it"
    ):
        read(config(folder))
    cache.write_bytes(b"PAR1")
    assert len(read(config(folder)))


def test_changed_tables_are_read_anew(folder: Path) -> None:
    write_fma(folder)
    first = read(config(folder))
    tracks = make_tracks()
    tracks["artist", "id"] += 7000
    write_fma(folder, tracks)
    assert read(config(folder)).fingerprint != first.fingerprint
    (folder / CACHE).write_bytes(b"damaged")
    assert len(read(config(folder))) == len(first)


def test_tracks_in_one_table_only_are_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    features, tracks = write_fma(folder)
    tracks.drop(index=[2]).to_csv(folder / "tracks.csv")
    features.drop(index=[14]).to_csv(folder / "features.csv")
    ids = read(config(folder)).ids.tolist()
    assert "2" not in ids
    assert "14" not in ids
    assert "1 tracks are not in tracks.csv and are left out" in caplog.text


def test_the_features_are_known_to_be_made_otherwise_than_this_packages(folder: Path) -> None:
    write_fma(folder)
    for groups in (None, ["mfcc"]):
        made_with = read(config(folder, feature_groups=groups)).made_with
        assert made_with is not None
        assert "sample_rate_hz each file's own, not 22050" in str(
            FMA518.build_reference().describe_difference(made_with)
        )


@pytest.mark.parametrize("name", ["features.csv", "tracks.csv"])
def test_a_missing_table_says_where_it_is_published(name: str, folder: Path) -> None:
    write_fma(folder)
    (folder / name).unlink()
    with pytest.raises(DataError) as caught:
        read(config(folder))
    for text in (str(folder / name), "there is no such file", ARCHIVE.url, ARCHIVE.sha1, "download fma"):
        assert text in str(caught.value)


def spoil(folder: Path, name: str, change) -> None:
    path = folder / name
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(change(lines)))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "features.csv",
            lambda lines: lines[3:],
            r"features\.csv: expected 3 header rows and a row that begins",
        ),
        ("features.csv", lambda lines: lines[:3] + lines[4:], "a row that begins with track_id"),
        ("tracks.csv", lambda lines: lines[:2] + lines[3:], r"tracks\.csv: expected 2 header rows"),
        ("tracks.csv", lambda lines: [], r"tracks\.csv: expected 2 header rows"),
        (
            "features.csv",
            lambda lines: [lines[0].replace("tonnetz", "tonality"), *lines[1:]],
            "42 of FMA's 518 features are missing, such as 'tonnetz_kurtosis_01'",
        ),
        (
            "tracks.csv",
            lambda lines: [lines[0], lines[1].replace("genre_top", "genre"), *lines[2:]],
            r"there is no column \('track', 'genre_top'\)",
        ),
        ("features.csv", lambda lines: [*lines[:6], "5,loud\n"], "features.csv is damaged"),
        (
            "features.csv",
            lambda lines: [*lines[:4], lines[4].replace("e-01", "x-01"), *lines[5:]],
            "is damaged",
        ),
    ],
)
def test_a_table_of_another_layout_is_refused(name: str, change, message: str, folder: Path) -> None:
    write_fma(folder)
    spoil(folder, name, change)
    with pytest.raises(DataError, match=message):
        read(config(folder))
    assert not (folder / CACHE).exists()


def test_a_gap_in_the_features_is_reported_with_its_column(folder: Path) -> None:
    features, _ = write_fma(folder)
    features.loc[2, ("mfcc", "mean", "03")] = np.nan
    features.to_csv(folder / "features.csv")
    with pytest.raises(DataError, match="track 2, column 'mfcc_mean_03': NaN or an empty cell"):
        read(config(folder))


def test_a_subset_without_genres_is_refused(folder: Path) -> None:
    tracks = make_tracks()
    tracks["track", "genre_top"] = pd.Series(dtype=object)
    write_fma(folder, tracks)
    with pytest.raises(DataError, match="no track of subset small has a top genre"):
        read(config(folder))


def test_another_split_column_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="FMA's tables have one split, 'split'"):
        read(FmaConfig(path=str(folder), split=SplitConfig(column="fold")))


def test_many_blocks_read_like_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fma(folder)
    first = read(config(folder)).fingerprint
    (folder / CACHE).unlink()
    monkeypatch.setattr(fma_tables, "BLOCK_BYTES", 20_000)
    assert read(config(folder)).fingerprint == first
