import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from genre_classifier.config.schema import SplitConfig, SplitFiles, SplitMethod
from genre_classifier.data.splits import get_stem, make_split
from genre_classifier.data.table import FeatureTable, Source, build_table
from genre_classifier.errors import SplitError
from tests.conftest import GTZAN

SOURCE = Source("table", "a test", "none", "none")


def table(
    labels: list[str], groups: list[str] | None = None, ids: list[str] | None = None, **changes: Any
) -> FeatureTable:
    n = len(labels)
    return build_table(
        features=np.arange(n, dtype=np.float32).reshape(n, 1),
        labels=labels,
        feature_names=["x"],
        ids=ids or [f"t{i}" for i in range(n)],
        groups=groups,
        group_name="artist",
        source=SOURCE,
        where="my.csv",
        **changes,
    )


def check_sides(made: FeatureTable, sides: dict[str, np.ndarray], complete: bool = True) -> None:
    rows = np.concatenate(list(sides.values()))
    assert len(set(rows.tolist())) == len(rows), "a row is on two sides"
    if complete:
        assert sorted(rows.tolist()) == list(range(len(made))), "a row is on no side"


counts_by_genre = st.lists(st.integers(3, 60), min_size=2, max_size=5)


@given(
    counts=counts_by_genre,
    seed=st.integers(0, 2**31),
    share=st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.25, 0.25)]),
)
@settings(max_examples=60, deadline=None)
def test_a_stratified_split_is_complete_disjoint_and_true_to_every_genre(
    counts: list[int], seed: int, share: tuple[float, float, float]
) -> None:
    labels = [f"g{genre}" for genre, count in enumerate(counts) for _ in range(count)]
    made = table(labels)
    split = make_split(made, SplitConfig(seed=seed, train=share[0], val=share[1], test=share[2]))
    check_sides(made, split.sides())
    for (side, rows), wanted in zip(split.sides().items(), share, strict=True):
        found = Counter(made.genres[rows].tolist())
        for genre, count in enumerate(counts):
            assert found[genre] >= 1, (side, genre)
            assert abs(found[genre] - wanted * count) < 1.0 + (count * min(share) < 1), (side, genre)
    assert split.protocol.name == "stratified"
    assert split.protocol.groups_disjoint is None


group_sizes = st.lists(st.lists(st.integers(1, 12), min_size=3, max_size=15), min_size=2, max_size=5)


@given(sizes=group_sizes, seed=st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_a_grouped_split_keeps_every_group_whole_and_every_genre_on_every_side(
    sizes: list[list[int]], seed: int
) -> None:
    labels, groups = [], []
    for genre, members in enumerate(sizes):
        for number, size in enumerate(members):
            labels += [f"g{genre}"] * size
            groups += [f"g{genre}-a{number}"] * size
    made = table(labels, groups)
    split = make_split(made, SplitConfig(seed=seed))
    check_sides(made, split.sides())
    assert made.groups is not None
    seen: dict[str, str] = {}
    for side, rows in split.sides().items():
        assert set(made.genres[rows].tolist()) == set(range(len(sizes)))
        for group in set(made.groups[rows]):
            assert seen.setdefault(group, side) == side
    assert split.protocol.name == "grouped"
    assert split.protocol.groups_disjoint is True


def test_a_grouped_split_comes_near_the_shares_asked_for() -> None:
    labels = [f"g{genre}" for genre in range(8) for _ in range(300)]
    groups = [f"g{genre}-a{row // 15}" for genre in range(8) for row in range(300)]
    made = table(labels, groups)
    split = make_split(made, SplitConfig())
    for rows, share in zip(split.sides().values(), (0.7, 0.15, 0.15), strict=True):
        per_genre = np.bincount(made.genres[rows], minlength=8) / 300
        assert np.abs(per_genre - share).max() <= 0.03


def test_groups_of_several_genres_stay_whole() -> None:
    rng = np.random.default_rng(1)
    groups = [f"a{g}" for g in rng.integers(0, 30, size=400)]
    labels = [f"g{g}" for g in rng.integers(0, 4, size=400)]
    made = table(labels, groups)
    split = make_split(made, SplitConfig())
    assert made.groups is not None
    sides = [set(made.groups[rows]) for rows in split.sides().values()]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]


def test_the_seed_decides_and_repeats() -> None:
    made = table(["a", "b"] * 50)
    first, again, other = (make_split(made, SplitConfig(seed=seed)) for seed in (1, 1, 2))
    assert first.train.tolist() == again.train.tolist()
    assert first.train.tolist() != other.train.tolist()


def test_random_rows_with_known_groups_are_labelled_as_such() -> None:
    made = table(["a", "b"] * 30, [f"x{i // 4}" for i in range(60)])
    split = make_split(made, SplitConfig(method=SplitMethod.stratified))
    assert split.protocol.groups_disjoint is False
    assert "optimistic" in split.protocol.description


@pytest.mark.parametrize("grouped", [True, False])
def test_folds_test_every_row_exactly_once(grouped: bool) -> None:
    groups = [f"x{i // 3}" for i in range(120)] if grouped else None
    made = table(["a", "b", "c"] * 40, groups)
    splits = [make_split(made, SplitConfig(folds=5, fold=fold)) for fold in range(5)]
    tested = np.concatenate([split.test for split in splits])
    assert sorted(tested.tolist()) == list(range(120))
    for fold, split in enumerate(splits):
        check_sides(made, split.sides())
        assert abs(len(split.val) / (len(split.val) + len(split.train)) - 0.15 / 0.85) < 0.05
        assert f"fold {fold} of 5" in split.protocol.description
        if grouped:
            assert made.groups is not None
            assert not set(made.groups[split.test]) & set(
                made.groups[np.concatenate([split.train, split.val])]
            )


lopsided = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=9), min_size=2, max_size=6)


@given(sizes=lopsided, folds=st.integers(2, 6), seed=st.integers(0, 2**31), grouped=st.booleans())
@example(sizes=[[5, 8], [5, 8]], folds=4, seed=0, grouped=True)  # no draw puts each group into its own fold
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_genre_of_few_groups_trains_in_every_fold_and_is_tested_once(
    caplog: pytest.LogCaptureFixture, sizes: list[list[int]], folds: int, seed: int, grouped: bool
) -> None:
    members = [
        (f"g{genre}", f"g{genre}-a{n}")
        for genre, groups in enumerate(sizes)
        for n, k in enumerate(groups)
        for _ in range(k)
    ]
    made = table([genre for genre, _ in members], [group for _, group in members] if grouped else None)
    assume(np.bincount(made.genres).max() >= folds)
    assume(not grouped or sum(map(len, sizes)) >= folds)
    caplog.clear()
    splits = [make_split(made, SplitConfig(folds=folds, fold=fold, seed=seed)) for fold in range(folds)]
    assert sorted(np.concatenate([split.test for split in splits]).tolist()) == list(range(len(made)))
    for split in splits:
        check_sides(made, split.sides())
        assert len(split.test)
        assert set(made.genres[split.train].tolist()) == set(range(len(sizes)))
        if grouped:
            assert made.groups is not None
            sides = [set(made.groups[rows]) for rows in split.sides().values()]
            assert len(set.union(*sides)) == sum(map(len, sides))
    units = [len(groups) if grouped else sum(groups) for groups in sizes]
    told = [
        record.getMessage() for record in caplog.records if "Some folds do not test it" in record.getMessage()
    ]
    assert len(told) == (min(units) < folds)  # once, not for each fold
    for genre, count in enumerate(units):
        assert all((f"'g{genre}' has {count} " in message) == (count < folds) for message in told)
        # Every number that these folds give says so.
        described = [split.protocol.description.partition("some folds do not test ")[2] for split in splits]
        assert {f"'g{genre}' ({count} " in text for text in described} == {count < folds}


def test_artists_who_play_several_genres_may_leave_a_side_without_one() -> None:
    artists = {"a": "opq", "b": "rso", "c": "tuq", "d": "tov", "e": "wup", "f": "rxy", "g": "rwo", "h": "zu1"}
    rows = [(genre, artist) for genre, names in artists.items() for artist in names for _ in range(2)]
    made = table([genre for genre, _ in rows], [artist for _, artist in rows])
    refused = []
    for seed in range(20):
        try:
            make_split(made, SplitConfig(seed=seed))
        except SplitError as error:
            refused.append(str(error))
    assert refused
    for message in refused:
        assert re.search(
            r"with no artist on two sides the (test|val) rows have no row of genre '\w'", message
        )
        assert "try another data.split.seed, or larger data.split.val and data.split.test" in message


def test_the_last_group_of_a_genre_trains_and_does_not_validate(caplog: pytest.LogCaptureFixture) -> None:
    made = table(
        ["a"] * 20 + ["b"] * 12,
        [f"x{i}" for i in range(20)] + ["y"] * 9 + ["z"] * 3,
        given_split=["train"] * 15 + ["test"] * 5 + ["train"] * 9 + ["test"] * 3,
    )
    split = make_split(made, SplitConfig(column="split"))
    assert len(split.val)
    assert set(made.genres[split.train].tolist()) == {0, 1}
    assert "the validation rows have no row of genre 'b': it has too few artists beside the" in caplog.text


def test_a_given_column_is_followed_to_the_letter() -> None:
    given_split = ["train", "Validation", "TEST", "training", "dev", "testing"]
    made = table(["a", "b"] * 3, given_split=given_split)
    split = make_split(made, SplitConfig(column="split"))
    assert {name: rows.tolist() for name, rows in split.sides().items()} == {
        "train": [0, 3],
        "val": [1, 4],
        "test": [2, 5],
    }
    assert split.protocol.name == "given"


def write_ids(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_files_match_ids_by_stem_and_the_rest_of_training_validates(tmp_path: Path) -> None:
    ids = [f"{genre}.{n:05d}.au" for genre in ("blues", "rock") for n in range(20)]
    made = table([name.split(".")[0] for name in ids], ids=ids)
    train = [f"{name.split('.')[0]}/{name[:-3]}.wav" for name in ids if int(name.split(".")[1]) < 15]
    test = [f"{name.split('.')[0]}/{name[:-3]}.wav" for name in ids if int(name.split(".")[1]) >= 15]
    files = SplitFiles(train=write_ids(tmp_path / "a.txt", train), test=write_ids(tmp_path / "b.txt", test))
    split = make_split(made, SplitConfig(files=files))
    assert [ids[row] for row in split.test] == [name for name in ids if int(name.split(".")[1]) >= 15]
    assert len(split.val) > 0
    check_sides(made, split.sides())
    assert "a.txt" in split.protocol.description


def test_a_line_may_name_a_group_and_unlisted_rows_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    groups = [f"{genre}.{track:05d}" for genre in ("blues", "rock") for track in range(6) for _ in range(10)]
    ids = [f"{group}.{n % 10}.wav" for n, group in enumerate(groups)]
    made = table([group.split(".")[0] for group in groups], groups, ids)
    files = SplitFiles(
        train=write_ids(
            tmp_path / "a.txt", [f"x/{g}.{n:05d}.wav" for g in ("blues", "rock") for n in (0, 1, 2)]
        ),
        test=write_ids(tmp_path / "b.txt", ["x/blues.00003.wav", "rock.00003"]),
    )
    split = make_split(made, SplitConfig(files=files))
    assert len(split.train) + len(split.val) == 60
    assert len(split.test) == 20
    assert "40 of 120 rows are in no split file" in caplog.text
    check_sides(made, split.sides(), complete=False)


def test_without_a_training_file_all_other_rows_train(tmp_path: Path) -> None:
    made = table(["a", "b"] * 20)
    test = write_ids(tmp_path / "b.txt", ["t0", "t1", "t2", "t3"])
    split = make_split(made, SplitConfig(files=SplitFiles(test=test)))
    assert split.test.tolist() == [0, 1, 2, 3]
    assert len(split.train) + len(split.val) == 36


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["t0", "nowhere.wav"],
            r"b.txt, line 2: 'nowhere.wav' is no id of my.csv \(its ids look like 't0'\)",
        ),
        ([], "b.txt lists no ids"),
        (["t9"], r"b.txt, line 1: 't9' is already in the train file"),
    ],
)
def test_a_bad_split_file_is_named_with_the_line(tmp_path: Path, lines: list[str], message: str) -> None:
    made = table(["a", "b"] * 20)
    files = SplitFiles(
        train=write_ids(tmp_path / "a.txt", ["t8", "t9", "t10", "t11"]),
        test=write_ids(tmp_path / "b.txt", lines) if lines else write_ids(tmp_path / "b.txt", [""]),
    )
    with pytest.raises(SplitError, match=message):
        make_split(made, SplitConfig(files=files))


def test_a_split_file_may_be_written_in_another_unicode_form(tmp_path: Path) -> None:
    made = table(["a", "b"] * 9, ids=[f"Forr\u00f3 {row}.wav" for row in range(18)])
    test = write_ids(tmp_path / "b.txt", ["x/Forro\u0301 3.wav", "Forro\u0301 4.wav "])
    assert make_split(made, SplitConfig(files=SplitFiles(test=test))).test.tolist() == [3, 4]


def test_a_stem_of_several_ids_is_refused(tmp_path: Path) -> None:
    made = table(["a", "b", "a", "b"], ids=["x/1.wav", "y/1.wav", "x/2.wav", "y/2.wav"])
    files = SplitFiles(test=write_ids(tmp_path / "b.txt", ["1.mp3"]))
    with pytest.raises(SplitError, match=r"'1.mp3' matches 2 ids, such as 'x/1.wav' and 'y/1.wav'"):
        make_split(made, SplitConfig(files=files))


def test_a_missing_split_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match=r"data.split.files.test=.*none.txt: No such file"):
        make_split(table(["a", "b"] * 9), SplitConfig(files=SplitFiles(test=str(tmp_path / "none.txt"))))


@pytest.mark.parametrize(
    ("made", "config", "message"),
    [
        (
            table(["a"] * 10 + ["b"] * 2),
            SplitConfig(),
            r"genre 'b' has 2 rows, too few for 3 sides \(train, val, test\)",
        ),
        (
            table(["a", "b"] * 10, ["one"] * 10 + [f"x{i}" for i in range(10)]),
            SplitConfig(folds=12, fold=0),
            "11 artists, at most 10 rows of one genre: too few for 12 folds",
        ),
        (
            table(["a", "b"] * 10, ["one", "two"] * 9 + ["three", "four"]),
            SplitConfig(folds=11, fold=0),
            "4 artists, at most 10 rows of one genre: too few for 11 folds",
        ),
        (
            table(["a"] * 20 + ["b"] * 5, [f"x{i}" for i in range(20)] + ["y"] * 5),
            SplitConfig(folds=3, fold=0),
            "genre 'b' has 1 artist, too few for folds",
        ),
        (
            table(["a"] * 12 + ["b"] * 12, [f"x{i}" for i in range(12)] + ["y", "z"] * 6),
            SplitConfig(),
            "genre 'b' has 2 artists, too few for 3 sides",
        ),
        (table(["a", "b"] * 9), SplitConfig(method=SplitMethod.grouped), "has no groups: name their column"),
        (
            table(["a", "b"] * 3, given_split=["train", "test", "maybe"] * 2),
            SplitConfig(column="s"),
            "id 't2', column 's': 'maybe' is no side of a split",
        ),
        (
            table(["a", "b"] * 3, given_split=["train", "val"] * 3),
            SplitConfig(column="s"),
            "has no test rows",
        ),
        (
            table(["a", "a", "b", "b"], given_split=["train", "val", "test", "test"]),
            SplitConfig(column="s"),
            "no training row of genre 'b'",
        ),
        (
            table(
                ["a", "b"] * 3,
                ["x", "y", "z"] * 2,
                given_split=["train", "train", "test", "test", "val", "val"],
            ),
            SplitConfig(column="s"),
            r"puts artist 'x' on several sides \(train, test\), and 2 more",
        ),
    ],
)
def test_an_impossible_split_is_refused_with_what_stands_in_the_way(
    made: FeatureTable, config: SplitConfig, message: str
) -> None:
    with pytest.raises(SplitError, match=message):
        make_split(made, config)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blues/blues.00029.wav", "blues.00029"),
        ("blues.00029.au", "blues.00029"),
        ("blues.00029", "blues.00029"),
        ("a\\b\\song.MP3", "song"),
        ("rock/artist-03/track-07", "track-07"),
    ],
)
def test_the_stem_drops_folders_and_audio_suffixes_only(name: str, expected: str) -> None:
    assert get_stem(name) == expected


@pytest.mark.skipif(not GTZAN.exists(), reason="the GTZAN table is not beside the repository")
def test_the_published_gtzan_split_matches_every_line() -> None:
    from genre_classifier.config.schema import GtzanConfig
    from genre_classifier.data.sources import read

    made = read(GtzanConfig(path=str(GTZAN / "features_30_sec.csv")))
    files = SplitFiles(train=str(GTZAN / "train_filtered.txt"), test=str(GTZAN / "valid_filtered.txt"))
    split = make_split(made, SplitConfig(files=files))
    assert (len(split.train) + len(split.val), len(split.test)) == (443, 197)


def test_all_rows_can_train() -> None:
    made = table(["a", "b"] * 35)
    split = make_split(made, SplitConfig(method=SplitMethod.all))
    assert split.train.tolist() == list(range(len(made)))
    assert len(split.val) == len(split.test) == 0
    assert split.protocol.name == "all"
    assert split.protocol.seed is None


def test_with_all_rows_training_those_that_the_files_leave_out_stay_out(tmp_path: Path) -> None:
    made = table(["a", "b"] * 35)
    (tmp_path / "train.txt").write_text("\n".join(made.ids[:40]))
    (tmp_path / "test.txt").write_text("\n".join(made.ids[50:60]))
    files = SplitFiles(train=str(tmp_path / "train.txt"), test=str(tmp_path / "test.txt"))
    split = make_split(made, SplitConfig(method=SplitMethod.all, files=files))
    assert split.train.tolist() == [*range(40), *range(50, 60)]
    assert "all rows of the files train: train.txt, test: test.txt train" in split.protocol.description
