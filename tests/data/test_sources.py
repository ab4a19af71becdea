import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from genre_classifier.config.schema import DataConfig, GtzanConfig, NanPolicy, SplitConfig, TableConfig
from genre_classifier.data.sources import read
from genre_classifier.data.tables.columns import read_columns
from genre_classifier.errors import ConfigError, DataError
from genre_classifier.features.sets import GTZAN57
from tests.conftest import GTZAN, rows_of_music, write_csv


def config(path: Path, **changes: Any) -> TableConfig:
    return TableConfig(**({"path": str(path), "label": "genre", "group": "artist", "id": "track"} | changes))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_every_format_reads_what_pandas_wrote(tmp_path: Path, suffix: str) -> None:
    header, rows = rows_of_music()
    frame = pd.DataFrame(rows, columns=header)
    path = tmp_path / f"music{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    table = read(config(path))
    names = ["f0", "f1", "f2", "f3"]
    np.testing.assert_array_equal(table.features, frame[names].to_numpy(np.float32))
    assert table.feature_names == tuple(names)
    assert table.ids.tolist() == frame["track"].tolist()
    assert table.groups is not None
    assert table.groups.tolist() == frame["artist"].tolist()
    assert [table.genre_names[g] for g in table.genres] == frame["genre"].tolist()


def test_many_blocks_read_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genre_classifier.data.tables.readers.BLOCK_BYTES", 700)
    monkeypatch.setattr("genre_classifier.data.tables.readers.BLOCK_ROWS", 7)
    header, rows = rows_of_music()
    frame = pd.DataFrame(rows, columns=header)
    write_csv(tmp_path / "m.csv", header, rows)
    frame.to_parquet(tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        table = read(config(tmp_path / name))
        np.testing.assert_array_equal(table.features, frame[["f0", "f1", "f2", "f3"]].to_numpy(np.float32))
        assert table.ids.tolist() == frame["track"].tolist()


def test_text_columns_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    header, rows = rows_of_music()
    path = write_csv(tmp_path / "m.csv", [*header, "title"], [[*row, "a song"] for row in rows])
    assert read(config(path)).feature_names == ("f0", "f1", "f2", "f3")
    assert "not numeric and so not used as features: title ('a song')" in caplog.text


def test_features_can_be_selected_and_keep_the_order_asked_for(tmp_path: Path) -> None:
    header, rows = rows_of_music()
    path = write_csv(tmp_path / "m.csv", header, rows)
    table = read(config(path, features=["f2", "f0"]))
    expected = pd.read_csv(path)[["f2", "f0"]].to_numpy(np.float32)
    assert table.feature_names == ("f2", "f0")
    np.testing.assert_array_equal(table.features, expected)


def test_rows_are_numbered_where_no_id_is_named(tmp_path: Path) -> None:
    header, rows = rows_of_music()
    table = read(config(write_csv(tmp_path / "m.csv", header, rows), id=None, features=["f0"]))
    assert table.ids.tolist() == [str(i) for i in range(len(rows))]


def test_a_byte_order_mark_quotes_and_unicode_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    lines = ["genre,artist,track,x", '"Forró, Baião","Luiz ""Rei"" G.",1,0.5', "Enka,美空,2,1.5"]
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    table = read(config(path))
    assert table.genre_names == ("Enka", "Forró, Baião")
    assert table.groups is not None
    assert table.groups.tolist() == ['Luiz "Rei" G.', "美空"]


def bad_file(tmp_path: Path, kind: str) -> Path:
    header, rows = rows_of_music()
    path = tmp_path / "bad.csv"
    match kind:
        case "missing":
            return path
        case "folder":
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case "header only":
            write_csv(path, header, [])
        case "one column":
            path.write_text("just one column\nnothing\n")
        case "binary":
            path.write_bytes(gzip.compress(b"x" * 1000))
        case "not parquet":
            path = tmp_path / "bad.parquet"
            path.write_text("no parquet")
        case "excel":
            path = tmp_path / "bad.xlsx"
            path.write_text("x")
        case "no label":
            write_csv(path, ["track", "style", *header[2:]], rows)
        case "no group":
            write_csv(path, [*header[:2], "band", *header[3:]], rows)
        case "duplicate column":
            write_csv(path, [*header[:-1], "f0"], rows)
        case "not a number":
            rows[20][5] = "loud"
            write_csv(path, header, rows)
        case "ragged":
            rows[4].append(1.0)
            write_csv(path, header, rows)
        case "ragged late":
            header, rows = rows_of_music(n_tracks=100)
            rows[1500].append(1.0)
            write_csv(path, header, rows)
        case "nan":
            rows[7][4] = ""
            write_csv(path, header, rows)
        case "infinity":
            rows[7][4] = "inf"
            write_csv(path, header, rows)
        case "too large":
            rows[7][4] = "1e300"
            write_csv(path, header, rows)
        case "duplicate id":
            rows[3][0] = rows[2][0]
            write_csv(path, header, rows)
        case "one genre":
            write_csv(path, header, rows[:30])
        case "no features":
            write_csv(path, header[:3], [row[:3] for row in rows])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"bad.csv: there is no such file; check data.path"),
        ("folder", r"bad.csv is a folder"),
        ("empty", r"bad.csv is empty"),
        ("header only", r"bad.csv has a header but no rows"),
        ("one column", r"bad.csv is not a table: its first line has 1 column"),
        ("binary", r"bad.csv is not a text file in UTF-8"),
        ("not parquet", r"bad.parquet is not a Parquet file"),
        ("excel", r"bad.xlsx: .xlsx is not a kind of table"),
        ("no label", r"there is no column 'genre' \(data.label=genre\); it has track, style, artist"),
        ("no group", r"there is no column 'artist' \(data.group=artist\)"),
        ("duplicate column", r"column 'f0' appears 2 times"),
        ("not a number", r"row 22, column 'f2': 'loud' is not a number"),
        ("ragged", r"row 6: 8 cells, but the header has 7"),
        ("ragged late", r"row 1502: 8 cells, but the header has 7"),
        ("nan", r"row 9, column 'f1': NaN or an empty cell, as in 1 row\(s\)"),
        ("infinity", r"row 9, column 'f1': infinity"),
        ("too large", r"row 9, column 'f1': infinity, or a number too large"),
        ("duplicate id", r"id 'Ambient-0-2' appears 2 times"),
        ("one genre", r"all rows are of one genre, 'Ambient'"),
        ("no features", r"no column is left to be a feature"),
    ],
)
def test_a_bad_file_is_one_error_that_says_where(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(config(bad_file(tmp_path, kind)))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], r"data.features=\[\] selects nothing"),
        (["f0", "f9"], r"there is no column 'f9' \(data.features\)"),
        (["f0", "f0"], "data.features names 'f0' twice"),
        (["f0", "artist"], "data.features names 'artist', which is the label, group"),
        (["f0", "title"], "column 'title': 'a song' is not a number"),
    ],
)
def test_a_bad_selection_of_features_is_refused(tmp_path: Path, features: list[str], message: str) -> None:
    header, rows = rows_of_music()
    path = write_csv(tmp_path / "m.csv", [*header, "title"], [[*row, "a song"] for row in rows])
    with pytest.raises(DataError, match=message):
        read(config(path, features=features))


def test_nan_rows_can_be_dropped(tmp_path: Path) -> None:
    assert len(read(config(bad_file(tmp_path, "nan"), nan=NanPolicy.drop))) == 89


@pytest.mark.parametrize("cell", ["", "  ", "NA"])
@pytest.mark.parametrize(("column", "what"), [("style", "genre"), ("track", "id"), ("side", "split")])
def test_a_blank_cell_beside_the_features_is_named_with_row_and_column(
    tmp_path: Path, cell: str, column: str, what: str
) -> None:
    header, rows = rows_of_music()
    header = ["track", "style", *header[2:], "side"]
    rows = [[*row, "train"] for row in rows]
    rows[4][header.index(column)] = cell
    path = write_csv(tmp_path / "m.csv", header, rows)
    with pytest.raises(
        DataError, match=rf"m.csv, row 6, column '{column}': the {what} is empty; fill it in or remove"
    ):
        read(config(path, label="style", split=SplitConfig(column="side")))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_row_without_an_artist_is_a_group_of_its_own(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    header, rows = rows_of_music()
    blank = {4: "", 5: " ", 6: "N/A", 7: None}
    frame = pd.DataFrame(rows, columns=header)
    frame["artist"] = [blank.get(row, f"artist_{row // 3}") for row in range(len(frame))]
    path = tmp_path / f"m{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path, index=False)
    groups = read(config(path)).groups
    assert groups is not None
    alone = groups[list(blank)].tolist()
    assert len(set(alone)) == len(blank)
    assert not set(alone) & set(np.delete(groups, list(blank)))
    expected = [f"artist_{row // 3}" for row in range(len(frame)) if row not in blank]
    assert np.delete(groups, list(blank)).tolist() == expected
    assert (
        "4 of 90 rows have the artist (blank), which names nobody; each of these rows is a separate group"
        in caplog.text
    )


def test_a_group_that_is_blank_in_every_row_is_refused(tmp_path: Path) -> None:
    header, rows = rows_of_music()
    path = tmp_path / "m.csv"
    pd.DataFrame(rows, columns=header).assign(artist="").to_csv(path, index=False)
    with pytest.raises(
        DataError, match=r"m.csv: the artist is empty in every row; fill it in, or name no group"
    ):
        read(config(path))


@pytest.mark.parametrize("kind", ["object", "category", "string_view", "large_string"])
@pytest.mark.parametrize("cell", ["nan", "None", " N/A ", "", "NULL"])
def test_what_means_missing_is_missing_in_parquet_as_in_csv(tmp_path: Path, kind: str, cell: str) -> None:
    genres = pa.array(["Ambient", "Jazz"] * 10 + [cell])
    types = {
        "object": genres,
        "category": genres.dictionary_encode(),
        "string_view": genres.cast(pa.string_view()),
        "large_string": genres.cast(pa.large_string()),
    }
    path = tmp_path / "m.parquet"
    pa_parquet.write_table(pa.table({"genre": types[kind], "f0": np.arange(21) % 3 + 0.5}), path)
    with pytest.raises(DataError, match=r"m.parquet, row 21, column 'genre': the genre is empty; fill it in"):
        read(TableConfig(path=str(path), label="genre"))


NFC, NFD = "Forr\u00f3", "Forro\u0301"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_names_and_settings_in_another_unicode_form_are_the_same(tmp_path: Path, suffix: str) -> None:
    rows = [[f"{NFD}{row}", NFD if row % 2 else NFC, NFD, row * 0.7 % 1, row * 0.3 % 1] for row in range(9)]
    frame = pd.DataFrame(
        [*rows, ["x", "Jazz", NFC, 0, 1]], columns=["id", f"genre {NFD}", NFC, NFD[:5] + "1", " b "]
    )
    path = tmp_path / f"m{suffix}"
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    table = read(
        TableConfig(path=str(path), label=f"genre {NFC}", group=NFD, id="id", features=["b", NFD[:5] + "1 "])
    )
    assert table.genre_names == (NFC, "Jazz")
    assert table.ids.tolist()[:2] == [f"{NFC}0", f"{NFC}1"]
    assert table.group_name == NFC
    assert table.groups is not None
    assert set(table.groups) == {NFC}
    assert table.feature_names == ("b", NFD[:5] + "1")


@pytest.mark.parametrize("other", ["ambient", "AMBIENT", "Am bient", "\uff21mbient"])
def test_genres_that_differ_in_case_or_spaces_only_are_refused(tmp_path: Path, other: str) -> None:
    header, rows = rows_of_music()
    rows[4][1] = other
    with pytest.raises(
        DataError, match=r"genres '.*' and '.*' differ in case.* only; rename one, or join them"
    ):
        read(config(write_csv(tmp_path / "m.csv", header, rows)))


def test_artists_that_differ_in_case_only_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header, rows = rows_of_music()
    rows[0][2] = "AMBIENT-0"
    groups = read(config(write_csv(tmp_path / "m.csv", header, rows))).groups
    assert groups is not None
    assert len(set(groups)) == 19
    assert "artist 'AMBIENT-0' and 'Ambient-0' differ only in case" in caplog.text


def test_an_unknown_source_is_refused() -> None:
    expected = "expected one of audio_folder, demo, fma, gtzan, table"
    with pytest.raises(ConfigError, match=f"data.source=spotify: {expected}"):
        read(DataConfig(source="spotify"))


def gtzan_file(path: Path, names: list[str]) -> Path:
    rng = np.random.default_rng(0)
    rows = [[name, 661794, *rng.normal(size=57), name.split(".")[0]] for name in names]
    return write_csv(path, ["filename", "length", *GTZAN57.features, "label"], rows)


def test_gtzan_tracks_of_thirty_seconds_have_no_groups(tmp_path: Path) -> None:
    table = read(GtzanConfig(path=str(gtzan_file(tmp_path / "g.csv", ["blues.00000.wav", "rock.00001.wav"]))))
    assert table.feature_set is GTZAN57
    assert table.groups is None
    assert table.ids.tolist() == ["blues.00000.wav", "rock.00001.wav"]


def test_gtzan_segments_of_a_track_are_one_group(tmp_path: Path) -> None:
    names = [
        f"{genre}.{track:05d}.{segment}.wav"
        for genre in ("blues", "rock")
        for track in range(2)
        for segment in range(10)
    ]
    table = read(GtzanConfig(path=str(gtzan_file(tmp_path / "g.csv", names))))
    assert table.group_name == "track"
    assert table.made_with == GTZAN57.build_reference(3.0)
    assert table.groups is not None
    assert sorted(set(table.groups)) == ["blues.00000", "blues.00001", "rock.00000", "rock.00001"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["blues.00000.wav", "rock.00000.3.wav"], "mixes 30-second tracks and 3-second segments"),
        (["blues.00000.wav", "my song.wav"], "row 3, column 'filename': 'my song.wav' is not a GTZAN name"),
    ],
)
def test_gtzan_names_of_another_form_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(GtzanConfig(path=str(gtzan_file(tmp_path / "g.csv", names))))


def test_gtzan_without_one_of_its_columns_is_refused(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "g.csv", ["filename", "length", *GTZAN57.features[:-1], "label"], [["x"] * 59]
    )
    with pytest.raises(DataError, match=r"there is no column 'mfcc20_var' \(GTZAN's features\)"):
        read(GtzanConfig(path=str(path)))


@pytest.mark.skipif(not GTZAN.exists(), reason="the GTZAN table is not beside the repository")
def test_the_real_gtzan_table_reads_like_pandas() -> None:
    path = GTZAN / "features_30_sec.csv"
    table = read(GtzanConfig(path=str(path), split=SplitConfig()))
    frame = pd.read_csv(path)
    np.testing.assert_array_equal(table.features, frame[list(GTZAN57.features)].to_numpy(np.float32))
    assert [table.genre_names[g] for g in table.genres] == frame["label"].tolist()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("[0.265395]", r"g.csv, row 3, column 'tempo': '\[0.265395\]' is not a number; correct it$"),
        ("", r"g.csv, row 3, column 'tempo': NaN or an empty cell, .* leave them out with data.nan=drop"),
    ],
)
def test_advice_on_gtzan_names_only_settings_that_it_has(tmp_path: Path, cell: str, message: str) -> None:
    path = gtzan_file(tmp_path / "g.csv", ["blues.00000.wav", "rock.00001.wav"])
    frame = pd.read_csv(path, dtype=str)
    frame.loc[1, "tempo"] = cell
    frame.to_csv(path, index=False)
    with pytest.raises(DataError, match=message):
        read(GtzanConfig(path=str(path)))
    frame.assign(tempo="").to_csv(path, index=False)
    with pytest.raises(DataError, match=r"column 'tempo' .* is empty in every row; fill it in$"):
        read(GtzanConfig(path=str(path)))


def test_parquet_text_features_are_refused_by_name(tmp_path: Path) -> None:
    pd.DataFrame({"genre": ["a", "b"], "x": ["1", "2"], "y": [1.0, 2.0]}).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(DataError, match=r"column 'x' \(data.features\) does not hold numbers"):
        read_columns(tmp_path / "m.parquet", {"data.label": "genre"}, ["x"])


@pytest.mark.parametrize("path", ["~/m.csv", "~nobody-of-this-name/m.csv"])
def test_a_home_that_is_not_known_is_a_file_that_is_missing(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(DataError, match=f"{path}: there is no such file; check data.path"):
        read(TableConfig(path=path, label="genre"))
