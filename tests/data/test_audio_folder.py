"""A folder of audio is measured once, and is then a table like any other."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from genre_classifier.cli.main import main
from genre_classifier.config.schema import AudioFeatures, AudioFolderConfig, SplitConfig, TableConfig
from genre_classifier.data.sources import read
from genre_classifier.data.table import FeatureTable
from genre_classifier.errors import AudioError, DataError
from genre_classifier.features.sets import CORE20, FEATURE_SETS
from tests.features.sounds import collection, music, write


def go(path: Path, **changes) -> FeatureTable:
    cache = str(path.parent / "features.sqlite")
    return read(AudioFolderConfig(**{"path": str(path), "cache": cache, "jobs": 1} | changes))


def test_the_folders_are_the_genres(tmp_path: Path) -> None:
    table = go(collection(tmp_path / "music"))
    assert table.ids.tolist() == ["Jazz/0.wav", "Jazz/1.wav", "Rock/0.wav", "Rock/1.wav"]
    assert [table.genre_names[genre] for genre in table.genres] == ["Jazz", "Jazz", "Rock", "Rock"]
    assert table.groups is None
    assert table.feature_set is CORE20
    assert table.made_with == CORE20.build_reference()


def test_artists_are_groups_and_a_file_without_one_stands_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = collection(tmp_path / "music", n_tracks=1)
    write(root / "Jazz" / "Miles" / "a.wav")
    write(root / "Rock" / "b.flac", music(seed=9), artist="Janis")
    table = go(root)
    assert table.groups is not None
    assert table.groups.tolist() == ["Jazz/0.wav", "Miles", "Rock/0.wav", "Janis"]
    assert table.group_name == "artist"
    assert "2 of 4 files have neither an artist's folder nor an artist tag" in caplog.text


def test_windows_stay_together(tmp_path: Path) -> None:
    for genre in ("Jazz", "Rock"):
        write(tmp_path / "music" / genre / "a.wav", music(4.0, seed=len(genre)))
    table = go(tmp_path / "music", windows=2.0)
    assert len(table) == 4
    assert table.group_name == "track"
    assert table.groups is not None
    assert table.groups.tolist() == ["Jazz/a.wav"] * 2 + ["Rock/a.wav"] * 2
    assert table.description()["feature_set"]["parameters"]["clip_seconds"] == 2.0


def test_a_list_of_files_is_read_like_a_folder(tmp_path: Path) -> None:
    root = collection(tmp_path / "music")
    pd.DataFrame({"path": ["music/Jazz/1.wav", "music/Rock/0.wav"], "genre": ["Jazz", "Rock"]}).to_csv(
        tmp_path / "list.csv", index=False
    )
    table = go(tmp_path / "list.csv")
    whole = go(root)
    assert (table.features == whole.features[[1, 2]]).all()


def test_bad_files_are_left_out_with_a_warning_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = collection(tmp_path / "music")
    (root / "Rock" / "bad.mp3").write_bytes(b"x")
    assert len(go(root)) == 4
    assert f"left out, unreadable: {root / 'Rock' / 'bad.mp3'} cannot be decoded" in caplog.text
    with pytest.raises(AudioError, match=r"bad\.mp3 cannot be decoded"):
        go(root, strict=True)


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    root = collection(tmp_path / "music", n_tracks=1)
    write(root / "loose.wav")
    with pytest.raises(DataError, match=r"loose\.wav has no genre"):
        go(root)
    with pytest.raises(DataError, match="a folder of audio has no split column"):
        go(root, split=SplitConfig(column="x"))


def test_the_sets_are_those_that_can_be_measured() -> None:
    assert [choice.value for choice in AudioFeatures] == list(FEATURE_SETS)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_an_extracted_table_says_how_it_was_made_when_it_is_read(suffix: str, tmp_path: Path) -> None:
    root = collection(tmp_path / "music")
    output = tmp_path / f"f{suffix}"
    cache = ["--cache", str(tmp_path / "c.sqlite"), "--jobs", "1"]
    assert main(["extract", str(root), str(output), "--windows", "1", *cache]) == 0
    table = read(TableConfig(path=str(output), label="genre", group="group", id="id"))
    assert table.made_with == CORE20.build_reference(1.0)
    assert table.group_name == "group"
    chosen = read(TableConfig(path=str(output), label="genre", features=["rms", "mfcc_1"]))
    assert chosen.made_with == CORE20.build_reference(1.0)
    assert read(TableConfig(path=str(output), label="genre", features=["rms"])).feature_set is None


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a.m4a", "b.m4a", "c.wma"], r"3 files left out: 2 \.m4a in Ska \(unsupported\), 1 \.wma in Ska"),
        (["a.mp3", "b.ogg"], r"Ska \(unreadable\).*a\.mp3 cannot be decoded"),
        (["cover.jpg"], r"Ska holds no music, 1 \.jpg"),
        ([], "Ska holds no file"),
    ],
)
def test_a_genre_that_ends_with_nothing_is_an_error_that_says_why(
    names: list[str], reason: str, strict: bool, tmp_path: Path
) -> None:
    root = collection(tmp_path / "music")
    (root / "Ska").mkdir()
    for name in names:
        (root / "Ska" / name).write_bytes(b"no music at all" * 100)
    with pytest.raises(AudioError, match="Ska" if strict else f"nothing is left of genre 'Ska': .*{reason}"):
        go(root, strict=strict)


def test_a_genre_of_any_format_of_libsndfile_is_read(tmp_path: Path) -> None:
    root = collection(tmp_path / "music", n_tracks=1)
    for place, suffix in enumerate(("aiff", "AIF", "w64", "caf", "rf64")):
        path = write(
            root / "Ska" / f"{place}.{'aiff' if suffix == 'AIF' else suffix}", music(1.5, seed=place)
        )
        path.rename(path.with_suffix(f".{suffix}"))
    table = go(root)
    assert [table.genre_names[genre] for genre in table.genres].count("Ska") == 5


def test_what_is_left_out_is_one_warning_with_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = collection(tmp_path / "music")
    for number in range(30):
        (root / "Rock" / f"{number}.m4a").write_bytes(b"x")
    (root / "loose.wma").write_bytes(b"x")
    (root / "Rock" / "cover.jpg").write_bytes(b"x")
    assert len(go(root)) == 4
    assert "31 files left out: 30 .m4a in Rock (unsupported), 1 .wma in" in caplog.text
    assert caplog.text.count("WARNING") == 2
    assert "cover.jpg" not in caplog.text


NOBODIES = ("Various Artists", "Unknown Artist", "VA", "<unknown>", "N/A")


def test_tracks_by_nobody_are_groups_of_their_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "music"
    for number, artist in enumerate(NOBODIES):
        write(root / "Jazz" / f"{number}.flac", music(1.5, seed=number), artist=artist)
    write(root / "Rock" / "Various" / "a.wav", music(1.5, seed=20))
    write(root / "Rock" / "Various" / "b.flac", music(1.5, seed=21), artist="Janis")
    write(root / "Rock" / "c.flac", music(1.5, seed=22), artist="Janis")
    table = go(root)
    assert table.groups is not None
    assert table.groups.tolist() == [
        *(f"Jazz/{number}.flac" for number in range(5)),
        *("Rock/Various/a.wav", "Janis", "Janis"),
    ]
    assert table.group_name == "artist"
    assert caplog.text.count("WARNING") == 1
    assert "6 of 8 files are by 'Various Artists', 'Unknown Artist', 'VA'" in caplog.text


def test_without_any_named_artist_there_are_no_groups(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "music"
    for number, genre in enumerate(("Jazz", "Jazz", "Rock", "Rock")):
        write(root / genre / f"{number}.flac", music(2.5, seed=number), artist=NOBODIES[number % 2])
    files = [f"{genre}/{number}.flac" for number, genre in enumerate(("Jazz", "Jazz", "Rock", "Rock"))]
    table = go(root)
    assert table.group_name == "track"
    assert table.groups is not None
    assert table.groups.tolist() == files
    assert "4 of 4 files are by 'Various Artists', 'Unknown Artist'" in caplog.text
    windowed = go(root, windows=1.0)
    assert windowed.group_name == "track"
    assert windowed.groups is not None
    assert windowed.groups.tolist() == [file for file in files for _ in range(3)]


def test_a_file_with_an_odd_header_is_measured_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = collection(tmp_path / "music")
    path = root / "Rock" / "0.wav"
    content = path.read_bytes()
    start = content.index(b"data") + 4
    path.write_bytes(content[:start] + b"\xff\xff\xff\xff" + content[start + 4 :])
    assert len(go(root)) == 4
    assert f"{path}: its header does not say how long it is; it was measured all the same" in caplog.text
