import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genre_classifier.config.schema import TableConfig
from genre_classifier.data.sources import read
from tests.conftest import rows_of_music

HEADER, ROWS = rows_of_music()
N = len(ROWS)
RNG = np.random.default_rng(0)


def frame(**columns: object) -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=HEADER).drop(columns=["track", "artist"]).assign(**columns)


def features_of(path: Path, features: list[str] | None = None) -> tuple[str, ...]:
    return read(TableConfig(path=str(path), label="genre", features=features)).feature_names


def written(made: pd.DataFrame, folder: Path, suffix: str, index: bool = False) -> Path:
    path = folder / f"music{suffix}"
    if suffix == ".csv":
        made.to_csv(path, index=index)
    else:
        made.to_parquet(path, index=index)
    return path


FEATURES = ("f0", "f1", "f2", "f3")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("index", [None, "nr", "f9"])
def test_a_saved_index_is_no_feature(
    tmp_path: Path, suffix: str, index: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    made = frame().sample(frac=0.9, random_state=0)
    made.index.name = index
    found = features_of(written(made, tmp_path, suffix, index=True))
    if index is None or suffix == ".parquet":  # a CSV file does not say which column was the index
        assert found == FEATURES
        assert "left out of the features, as the index" in caplog.text
    else:
        assert found == (index, *FEATURES)
        assert f"{index!r} has a different whole number in each row" in caplog.text
    assert "data.features=[...]" in caplog.text


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    "name",
    [
        "Unnamed: 0",
        "Unnamed: 0.1",
        "Unnamed: 0_level_0",
        "__index_level_0__",
        "level_0",
        "index",
        "Row_Nr",
        "rowid",
        "...1",
        "index.1",
        "ID",
        "idx",
        "#",
        "_c0",
    ],
)
def test_known_names_of_row_numbers_are_left_out_unless_asked_for(
    tmp_path: Path, suffix: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(frame(**{name: RNG.permutation(N) // 2}), tmp_path, suffix)
    assert features_of(path) == FEATURES
    assert (
        f"left out of the features, as the index or row numbers that were saved with the table: {name!r}"
        in caplog.text
    )
    caplog.clear()
    assert features_of(path, ["f0", name]) == ("f0", name)
    assert f"{name!r} of data.features looks like an index or row numbers" in caplog.text


def test_a_name_that_a_feature_may_have_is_a_feature_where_it_holds_fractions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(frame(level_0=RNG.normal(size=N), index=RNG.normal(size=N)), tmp_path, ".csv")
    assert features_of(path) == (*FEATURES, "level_0", "index")
    assert not caplog.records


LOOKS_LIKE_ROWS = {
    "from 0 to 89 once": np.arange(N),
    "from 1 to 90 once": RNG.permutation(N) + 1,
    "has a different whole number": RNG.choice(10**9, N, replace=False),
    "has a different whole number in": 20_000_000 + RNG.permutation(N),  # alike as float32
    "has a different whole number in each": 10**17 + RNG.permutation(N) * 1000,
    "only rises": np.sort(RNG.normal(size=N)),
    "only falls": np.repeat([2, 1, 0], N // 3),  # the genre's number
    "rises from row": np.where(np.arange(N) % 7 == 3, np.nan, np.linspace(0, 1, N)),  # with blank cells
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("finding", list(LOOKS_LIKE_ROWS))
def test_a_column_that_looks_like_row_numbers_is_named_in_one_warning(
    tmp_path: Path,
    suffix: str,
    finding: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("genre_classifier.data.tables.readers.BLOCK_BYTES", 700)
    monkeypatch.setattr("genre_classifier.data.tables.readers.BLOCK_ROWS", 7)
    made = frame(nr=LOOKS_LIKE_ROWS[finding], other=LOOKS_LIKE_ROWS[finding]).dropna(subset="f0")
    path = written(made, tmp_path, suffix)
    with caplog.at_level(logging.WARNING):
        if made["nr"].isna().any():
            from genre_classifier.config.schema import NanPolicy

            read(TableConfig(path=str(path), label="genre", nan=NanPolicy.drop))
        else:
            assert features_of(path) == (*FEATURES, "nr", "other")
    (message,) = [
        record.getMessage() for record in caplog.records if "row numbers or ids" in record.getMessage()
    ]
    assert finding in message
    assert "'nr'" in message
    assert "'other'" in message
    assert "'f0'" not in message


@pytest.mark.parametrize(
    "values",
    [
        RNG.integers(60, 200, N),  # tempo, rounded
        np.full(N, 3),
        (np.arange(N) == N - 1) * 1,  # a mark in the last row only
        np.repeat([0.0, 1.0], [2, N - 2]),
        RNG.normal(1e8, 1e7, N).astype(np.float32),  # whole because float32 has no room for more
        RNG.normal(size=N),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_ordinary_features_are_not_taken_for_row_numbers(
    tmp_path: Path, suffix: str, values: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    assert "x" in features_of(written(frame(x=values), tmp_path, suffix))
    assert "row numbers" not in caplog.text


def test_few_rows_in_order_are_chance(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = frame(x=np.arange(N) * 0.5, tempo=np.arange(N) * 3 % 83).iloc[::20]
    assert len(made) < 10
    assert "x" in features_of(written(made.assign(genre=list("abcab")), tmp_path, ".csv"))
    assert not caplog.records
