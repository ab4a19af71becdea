"""An extraction measures every file once, whatever interrupts it, and says what it left out."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from threadpoolctl import threadpool_limits

from genre_classifier.cli.main import main
from genre_classifier.errors import AudioError, DataError
from genre_classifier.features.decoding.audio import Excerpt, open_audio
from genre_classifier.features.discovery import AudioFile, find_audio, read_list
from genre_classifier.features.extract import Extraction, Settings, extract
from genre_classifier.features.measure import Failure, get_extractor, try_to_measure
from genre_classifier.features.output import read_feature_set
from genre_classifier.features.sets import CORE20, FEATURE_SETS
from genre_classifier.features.spectral.core20 import extract_core20
from genre_classifier.features.workers import measure_in_processes, run_in_processes
from tests.conftest import ROOT
from tests.features.sounds import abort_at_crash, collection, music, write

NAMES = list(CORE20.features)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "features.sqlite"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that this process decodes."""
    names: list[str] = []

    def counted(path: Path, name: str, excerpt: Excerpt):
        names.append(path.name)
        return try_to_measure(path, name, excerpt)

    monkeypatch.setattr("genre_classifier.features.workers.try_to_measure", counted)
    return names


def go(root: Path, cache: Path, **changes) -> Extraction:
    return extract(find_audio(root), Settings(**{"cache": cache, "jobs": 1, "progress": False} | changes))


def test_rows_are_those_of_the_extractor(tmp_path: Path, cache: Path) -> None:
    root = collection(tmp_path / "music")
    found = go(root, cache)
    for file, features in zip(found.files, found.features, strict=True):
        with open_audio(file.path) as recording:
            [clip] = recording.read_clips(Excerpt())
        np.testing.assert_allclose(features, extract_core20(clip.samples), rtol=1e-5, atol=1e-6)
    assert [row[1:] for row in found.list_rows()] == [
        ("Jazz/0.wav", None),
        ("Jazz/1.wav", None),
        ("Rock/0.wav", None),
        ("Rock/1.wav", None),
    ]


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    root = collection(tmp_path / "music", n_tracks=3)
    (root / "Rock" / "bad.mp3").write_bytes(b"x")
    one, two = (go(root, tmp_path / f"{jobs}.sqlite", jobs=jobs) for jobs in (1, 2))
    # Another process may round otherwise, where its memory begins elsewhere.
    np.testing.assert_allclose(one.features, two.features, rtol=1e-6, atol=1e-7)
    assert one.files == two.files
    assert one.failures == two.failures


def test_a_measured_file_is_not_read_again(tmp_path: Path, cache: Path, measured: list[str]) -> None:
    root = collection(tmp_path / "music")
    first = go(root, cache)
    again = go(root, cache)
    assert len(measured) == 4
    assert (first.n_known, again.n_known) == (0, 4)
    np.testing.assert_array_equal(again.features, first.features)


def test_a_moved_touched_or_copied_file_is_not_measured_again(
    tmp_path: Path, cache: Path, measured: list[str]
) -> None:
    root = collection(tmp_path / "music")
    go(root, cache)
    (root / "Rock" / "0.wav").rename(root / "Rock" / "new name.wav")
    os.utime(root / "Rock" / "1.wav", (1, 1))
    (root / "Jazz" / "copy.wav").write_bytes((root / "Jazz" / "0.wav").read_bytes())
    again = go(root, cache)
    assert len(measured) == 4
    assert again.n_known == 5


def test_changed_content_another_set_and_another_part_are_measured(
    tmp_path: Path, cache: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = collection(tmp_path / "music")
    first = go(root, cache)
    write(root / "Rock" / "0.wav", music(1.5, seed=77))  # of the same size
    changed = go(root, cache)
    assert measured[4:] == ["0.wav"]
    assert not np.array_equal(changed.features[2], first.features[2])
    go(root, cache, excerpt=Excerpt(duration=1.0))
    assert len(measured) == 9
    newer = type(CORE20)("core20", 2, CORE20.features)
    monkeypatch.setitem(FEATURE_SETS, "core20", newer)
    go(root, cache)
    assert len(measured) == 13


def test_windows_are_rows_with_their_track_as_group(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "music" / "Rock" / "long.wav", music(5.2))
    write(tmp_path / "music" / "Jazz" / "Miles" / "short.wav", music(2.0))
    found = go(tmp_path / "music", cache, excerpt=Excerpt(duration=None, window=2.0))
    assert [row[1:] for row in found.list_rows()] == [
        ("Jazz/Miles/short.wav@0", "Miles"),
        ("Rock/long.wav@0", "Rock/long.wav"),
        ("Rock/long.wav@2", "Rock/long.wav"),
        ("Rock/long.wav@4", "Rock/long.wav"),
    ]
    assert found.features.shape == (4, 20)
    assert found.made_with.parameters["clip_seconds"] == 2.0


def test_a_group_comes_from_the_folder_or_else_from_the_tag(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "music" / "Rock" / "Folder" / "a.flac", artist="Tag")
    write(tmp_path / "music" / "Rock" / "b.flac", music(seed=5), artist="Tag")
    assert [group for *_, group in go(tmp_path / "music", cache).list_rows()] == ["Folder", "Tag"]


def test_silent_windows_are_left_out(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "music" / "Rock" / "a.wav", np.concatenate([np.zeros((2 * 22_050, 1)), music(2.0)]))
    found = go(tmp_path / "music", cache, excerpt=Excerpt(duration=None, window=2.0))
    assert found.measured[0].starts.tolist() == [2.0]


def spoilt(root: Path) -> Path:
    """A collection with one good file and one of each kind of bad ones."""
    write(root / "Rock" / "good.wav")
    write(root / "Rock" / "silent.wav", np.zeros((22_050, 1)))
    write(root / "Rock" / "short.wav", music(0.5))
    write(root / "Rock" / "wrong.flac").rename(root / "Rock" / "wrong.mp3")
    (root / "Rock" / "broken.ogg").write_bytes(b"OggS" + bytes(500))
    return root


KINDS = {
    "broken.ogg": "unreadable",
    "short.wav": "too short",
    "silent.wav": "silent",
    "wrong.mp3": "mislabelled",
}


@pytest.mark.parametrize("jobs", [1, 2])
def test_bad_files_are_listed_and_skipped(jobs: int, tmp_path: Path, cache: Path) -> None:
    found = go(spoilt(tmp_path / "music"), cache, jobs=jobs)
    assert [file.path.name for file in found.files] == ["good.wav"]
    assert {file.path.name: failure.kind for file, failure in found.failures} == KINDS


def test_a_bad_file_is_an_error_if_strict(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(AudioError, match=r"broken\.ogg cannot be decoded"):
        go(spoilt(tmp_path / "music"), cache, strict=True)


def test_no_good_file_at_all_is_an_error(tmp_path: Path, cache: Path) -> None:
    root = spoilt(tmp_path / "music")
    (root / "Rock" / "good.wav").unlink()
    with pytest.raises(AudioError, match=r"no file could be measured: .*broken\.ogg .*, and 3 more"):
        go(root, cache)


def test_a_file_that_a_list_names_and_is_not_there_is_a_bad_one(tmp_path: Path, cache: Path) -> None:
    files = [AudioFile(write(tmp_path / "a.wav"), "a"), AudioFile(tmp_path / "gone.wav", "b")]
    found = extract(files, Settings(cache=cache, jobs=1, progress=False))
    [(file, failure)] = found.failures
    assert (file.id, failure.kind) == ("b", "unreadable")
    assert failure.reason == f"{tmp_path / 'gone.wav'}: No such file or directory"


def test_samples_that_are_not_finite_make_a_bad_file(tmp_path: Path) -> None:
    import soundfile

    samples = music(2.0)
    samples[100] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 22_050, subtype="FLOAT")
    result = try_to_measure(tmp_path / "a.wav", "core20", Excerpt()).result
    assert isinstance(result, Failure)
    assert "a.wav: signal has 1 samples that are not finite" in result.reason


def test_a_file_that_crashes_the_decoder_is_a_bad_one(capfd: pytest.CaptureFixture[str]) -> None:
    names = ["a.wav", "b.wav", "crash.wav", "d.wav", "e.wav"]
    found = run_in_processes(abort_at_crash, [Path(name) for name in names], 2, lambda failure: failure.kind)
    assert dict(found) == {0: "measured", 1: "measured", 2: "unreadable", 3: "measured", 4: "measured"}
    assert capfd.readouterr() == ("", "")


def test_a_script_without_a_guard_measures_in_processes(tmp_path: Path) -> None:
    paths = [write(tmp_path / name) for name in ("a.wav", "b.wav")]
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from genre_classifier.features.decoding.audio import Excerpt\n"
        "from genre_classifier.features.workers import measure_in_processes\n"
        "print('started')\n"
        "found = measure_in_processes([Path(p) for p in sys.argv[1:]], 'core20', Excerpt(), 2)\n"
        "print(sorted((position, len(outcome.result.features)) for position, outcome in found))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), *map(str, paths)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("started\n[(0, 1), (1, 1)]\n", "")


KILLED = """
import os, signal
import genre_classifier.features.extract as module
from genre_classifier.features.cache import FeatureCache
from genre_classifier.cli.main import main

module.BATCH_FILES, module.BATCH_SECONDS = 2, 1e9
keep, batches = FeatureCache.add, []
def add(self, batch):
    keep(self, batch)
    batches.append(len(batch))
    if len(batches) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
FeatureCache.add = add
main()
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_extraction_goes_on_where_it_was(
    jobs: int, tmp_path: Path, cache: Path, measured: list[str]
) -> None:
    root = collection(tmp_path / "music", n_tracks=5)
    script = tmp_path / "killed.py"
    script.write_text(KILLED.replace("\nmain()", '\nif __name__ == "__main__":\n    main()'))
    output = tmp_path / "f.parquet"
    command = ["extract", str(root), str(output), "--cache", str(cache), "--jobs", str(jobs)]
    done = subprocess.run([sys.executable, str(script), *command], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    assert main([*command[:-1], "1"]) == 0
    assert len(measured) == 10 - 4
    np.testing.assert_allclose(
        pd.read_parquet(output)[NAMES].to_numpy(),
        go(root, tmp_path / "fresh.sqlite").features,
        rtol=1e-6,
        atol=1e-7,
    )


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    root = collection(tmp_path / "music", n_tracks=20)
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, sys\nimport genre_classifier.features.extract as extract\n"
        "from genre_classifier.cli.main import main\n"
        "def kill(*_):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "extract.BATCH_FILES = 1\nextract.FeatureCache.add = kill\n"
        "if __name__ == '__main__':\n    main(sys.argv[1:])\n"
    )
    command = ["extract", str(root), str(tmp_path / "f.csv"), "--cache", str(tmp_path / "c"), "--jobs", "2"]
    # Closed when the last process that inherited it has ended.
    with subprocess.Popen(
        [sys.executable, str(script), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as started:
        assert started.communicate(timeout=120)[0] == b""
    assert started.returncode == -signal.SIGKILL


def test_an_interrupted_extraction_keeps_what_it_has(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = collection(tmp_path / "music")

    def interrupted(path: Path, name: str, excerpt: Excerpt):
        if path == root / "Rock" / "1.wav":
            raise KeyboardInterrupt
        return try_to_measure(path, name, excerpt)

    monkeypatch.setattr("genre_classifier.features.workers.try_to_measure", interrupted)
    command = ["extract", str(root), str(tmp_path / "f.csv"), "--cache", str(cache), "--jobs", "1"]
    assert main(command) == 1
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(command) == 0
    assert "4 files, 3 of them measured before" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_command_writes_a_table_and_says_how_it_was_made(
    suffix: str, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = spoilt(tmp_path / "music")
    output = tmp_path / "out" / f"features{suffix}"
    assert main(["extract", str(root), str(output), "--cache", str(cache), "--jobs", "1"]) == 0
    table = pd.read_parquet(output) if suffix == ".parquet" else pd.read_csv(output)
    assert list(table.columns) == ["id", "path", "genre", "group", *NAMES]
    assert table["path"].tolist() == [str(root / "Rock" / "good.wav")]
    expected = go(root, cache).features
    np.testing.assert_array_equal(table[NAMES].to_numpy(np.float32), expected)
    assert read_feature_set(output) == CORE20.build_reference()
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{output}: 1 rows of core20, version 1, from 1 files, ")
    errors = output.with_name("features.errors.csv")
    assert f"{errors}: 4 files skipped (1 mislabelled, 1 silent, 1 too short, 1 unreadable)" in captured.err
    with errors.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {Path(row["path"]).name: row["kind"] for row in rows} == KINDS
    for name in KINDS:
        (root / "Rock" / name).unlink()
    assert main(["extract", str(root), str(output), "--cache", str(cache)]) == 0
    assert not errors.exists()


def test_a_list_of_files_is_extracted_in_its_order(tmp_path: Path, cache: Path) -> None:
    root = collection(tmp_path / "music")
    (tmp_path / "list.csv").write_text(
        "id,path,genre,group\n7,music/Rock/1.wav,Rock,X\n5,music/Jazz/0.wav,Jazz,Y\n"
    )
    output = tmp_path / "f.parquet"
    command = ["extract", "--files", str(tmp_path / "list.csv"), str(output), "--cache", str(cache)]
    assert main([*command, "--features", "core20", "--jobs", "1"]) == 0
    table = pd.read_parquet(output)
    assert table[["id", "genre", "group"]].values.tolist() == [["7", "Rock", "X"], ["5", "Jazz", "Y"]]
    np.testing.assert_array_equal(table[NAMES].to_numpy(), go(root, cache).features[[3, 0]])


@pytest.mark.parametrize("name", ["gtzan57", "fma518"])
def test_the_wide_sets_are_extracted_by_their_names(name: str, tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("librosa", reason="needs the extra audio")
    root = collection(tmp_path / "music", n_tracks=1)
    found = go(root, cache, features=name)
    assert found.feature_names == FEATURE_SETS[name].features
    with open_audio(found.files[0].path) as recording:
        [clip] = recording.read_clips(Excerpt())
    with threadpool_limits(
        1, "blas"
    ):  # as the extraction does; chroma_cens has steps, which magnify a last bit
        expected = get_extractor(name)(clip.samples)
    np.testing.assert_array_equal(found.features[0], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["f.parquet"], "give either FOLDER or --files LIST"),
        (["music", "f.parquet", "--files", "list.csv"], "give either FOLDER or --files LIST"),
        (["music", "f.xlsx"], "f.xlsx: .xlsx is not a kind of table; expected .parquet or .csv"),
        (
            ["music", "f.csv", "--features", "x"],
            "feature set 'x' is unknown; there are core20, gtzan57, fma518",
        ),
        (["music", "f.csv", "--jobs", "0"], "jobs=0: expected at least 1"),
        (["music", "f.csv", "--duration", "0"], "duration=0: expected at least 1 seconds"),
        (["gone", "f.csv"], "gone: there is no such folder"),
        (["music", "f.csv", "--cache", "music"], "music cannot be used to keep features"),
    ],
)
def test_what_cannot_be_extracted_is_one_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    collection(tmp_path / "music", n_tracks=1)
    assert main(["extract", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_cache_of_another_kind_or_version_is_refused(tmp_path: Path, cache: Path) -> None:
    root = collection(tmp_path / "music", n_tracks=1)
    cache.parent.mkdir()
    cache.write_text("no database, but long enough to be taken for one" * 10)
    with pytest.raises(DataError, match=r"features\.sqlite cannot be used to keep features .*remove it"):
        go(root, cache)
    cache.unlink()
    go(root, cache)
    with sqlite3.connect(cache) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(DataError, match="format 9, this version reads 1"):
        go(root, cache)


@pytest.mark.parametrize(
    "program",
    [
        "CREATE TRIGGER t AFTER INSERT ON files BEGIN SELECT count(*) FROM ({endless}); END",
        "DROP TABLE files; CREATE VIEW files AS SELECT x path, x size, x modified, '' content FROM ({endless})",
        "DROP TABLE measured; CREATE TABLE measured (content TEXT, recipe TEXT, seconds AS (length(zeroblob(9))))",
        "CREATE INDEX i ON files (length(zeroblob(1000) || path))",
    ],
)
def test_a_cache_that_holds_a_program_is_refused(program: str, tmp_path: Path, cache: Path) -> None:
    root = collection(tmp_path / "music", n_tracks=1)
    go(root, cache)
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
    with contextlib.closing(sqlite3.connect(cache)) as database:
        database.executescript(program.format(endless=endless))
    code = f"""
from pathlib import Path
from genre_classifier.errors import DataError
from genre_classifier.features.cache import FeatureCache
try:
    FeatureCache(Path({str(cache)!r}), "recipe", 20)
except DataError as error:
    print(error)
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=ROOT, check=True)
    assert "that no cache has); remove it" in done.stdout


def test_two_extractions_may_share_a_cache(tmp_path: Path, cache: Path) -> None:
    root = collection(tmp_path / "music", n_tracks=4)
    command = [
        sys.executable,
        "-m",
        "genre_classifier",
        "extract",
        str(root),
        "--cache",
        str(cache),
        "--jobs",
        "1",
    ]
    started = [subprocess.Popen([*command, str(tmp_path / f"{i}.parquet")]) for i in range(2)]
    assert [process.wait(120) for process in started] == [0, 0]
    tables = [pd.read_parquet(tmp_path / f"{i}.parquet") for i in range(2)]
    pd.testing.assert_frame_equal(*tables)


def test_metadata_without_a_feature_set_is_none_and_nonsense_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1.0]}).to_parquet(tmp_path / "plain.parquet")
    (tmp_path / "plain.csv").write_text("a\n1\n")
    assert read_feature_set(tmp_path / "plain.parquet") is None
    assert read_feature_set(tmp_path / "plain.csv") is None
    sidecar = {"feature_set": "core20", "feature_set_version": "x", "feature_set_parameters": "{}"}
    (tmp_path / "plain.csv.json").write_text(json.dumps(sidecar))
    with pytest.raises(DataError, match="does not say how the features were made"):
        read_feature_set(tmp_path / "plain.csv")
    (tmp_path / "plain.csv.json").write_text("{")
    with pytest.raises(DataError, match=r"plain\.csv\.json: cannot be read as JSON"):
        read_feature_set(tmp_path / "plain.csv")


def test_batches_end_up_in_one_table(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genre_classifier.features.extract.BATCH_FILES", 2)
    root = collection(tmp_path / "music", n_tracks=3)
    assert len(go(root, cache).files) == 6
    assert go(root, cache).n_known == 6


def test_more_files_than_a_pool_queues_are_measured(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(1.2))
    outcomes = dict(measure_in_processes([path] * 25, "core20", Excerpt(), 2))
    assert sorted(outcomes) == list(range(25))


@pytest.mark.ray
def test_a_ray_cluster_measures_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    root = collection(tmp_path / "music", n_tracks=2)
    (root / "Rock" / "bad.mp3").write_bytes(b"x")
    output = tmp_path / "f.parquet"
    command = ["extract", str(root), str(output), "--cache", str(tmp_path / "c.sqlite"), "--ray", "local"]
    done = subprocess.run(
        [sys.executable, "-m", "genre_classifier", *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = go(root, tmp_path / "fresh.sqlite")
    np.testing.assert_array_equal(pd.read_parquet(output)[NAMES].to_numpy(), expected.features)
    assert pq.read_schema(output).metadata[b"feature_set"] == b"core20"


@pytest.mark.ray
def test_a_ray_cluster_that_does_not_answer_is_one_message(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    root = collection(tmp_path / "music", n_tracks=1)
    command = ["extract", str(root), str(tmp_path / "f.csv"), "--cache", str(cache), "--ray", "127.0.0.1:9"]
    assert main(command) == 1
    assert "error: --ray 127.0.0.1:9: no Ray cluster answers there" in capsys.readouterr().err


def test_without_ray_the_install_line_is_named(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    root = collection(tmp_path / "music", n_tracks=1)
    assert main(["extract", str(root), str(tmp_path / "f.csv"), "--cache", str(cache), "--ray", "local"]) == 1
    assert "pip install -c constraints.txt -e '.[ray]'" in capsys.readouterr().err


def damage(cache: Path, statement: str, *values: object) -> None:
    database = sqlite3.connect(cache)
    with database:
        database.execute(statement, values)
    database.close()


NAN_ROW = np.full(20, np.nan, np.float32).tobytes()
DAMAGE = {
    "NaN": ("UPDATE measured SET features = ?", NAN_ROW),
    "infinite": ("UPDATE measured SET features = ?", np.full(20, np.inf, np.float32).tobytes()),
    "other numbers": ("UPDATE measured SET features = ?", np.arange(20, dtype=np.float32).tobytes()),
    "21 columns": ("UPDATE measured SET features = ?", np.zeros(21, np.float32).tobytes()),
    "float64": ("UPDATE measured SET features = ?", np.zeros(20, np.float64).tobytes()),
    "two rows": ("UPDATE measured SET features = ?", np.zeros(40, np.float32).tobytes()),
    "cut off": ("UPDATE measured SET features = ?", NAN_ROW[:-1]),
    "empty": ("UPDATE measured SET features = ?", b""),
    "text": ("UPDATE measured SET features = ?", "1, 2, 3"),
    "nothing": ("UPDATE measured SET features = ?", None),
    "no clip": ("UPDATE measured SET starts = ?", b""),
    "half a start": ("UPDATE measured SET starts = ?", b"1234"),
    "start not finite": ("UPDATE measured SET starts = ?", np.array([np.nan]).tobytes()),
    "another start": ("UPDATE measured SET starts = ?", np.array([7.0]).tobytes()),
    "length as text": ("UPDATE measured SET seconds = ?", "long"),
    "negative length": ("UPDATE measured SET seconds = ?", -1.0),
    "no UTF-8": ("UPDATE measured SET artist = CAST(? AS TEXT)", b"\xff\xfe"),
    "another artist": ("UPDATE measured SET artist = ?", "Nobody"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_entry_is_measured_again_with_a_note(
    kind: str, tmp_path: Path, cache: Path, measured: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = collection(tmp_path / "music", n_tracks=1)
    first = go(root, cache)
    damage(cache, *DAMAGE[kind])
    again = go(root, cache)
    assert sorted(measured) == ["0.wav"] * 4
    np.testing.assert_array_equal(again.features, first.features)
    assert list(again.list_rows()) == list(first.list_rows())
    assert f"{cache}: 2 entries are damaged, and their files are measured again" in caplog.text
    assert go(root, cache).n_known == 2


def test_entries_of_versions_without_checksums_are_taken(tmp_path: Path, cache: Path) -> None:
    root = collection(tmp_path / "music", n_tracks=1)
    go(root, cache)
    damage(cache, "DROP TABLE checksums")
    assert go(root, cache).n_known == 2


def test_a_cache_that_breaks_is_given_up_with_one_message(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = collection(tmp_path / "music", n_tracks=6)
    first = go(root, cache)
    content = bytearray(cache.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)  # all but the first page, which makes it a database
    cache.write_bytes(content)
    again = go(root, cache)
    np.testing.assert_array_equal(again.features, first.features)
    assert caplog.text.count("what is measured from now on is not kept") == 1


@pytest.mark.parametrize("pages", [1, 7])
def test_a_full_disk_under_the_cache_is_one_message_and_all_is_measured(
    pages: int,
    tmp_path: Path,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = sqlite3.connect

    def on_a_small_disk(*arguments, **options) -> sqlite3.Connection:
        database = connect(*arguments, **options)
        database.execute(f"PRAGMA max_page_count = {pages}")
        return database

    monkeypatch.setattr(sqlite3, "connect", on_a_small_disk)
    monkeypatch.setattr("genre_classifier.features.extract.BATCH_FILES", 1)
    windows = Excerpt(duration=None, window=1.0, step=0.05)
    found = go(collection(tmp_path / "music"), cache, excerpt=windows)
    assert len(found.files) == 4
    assert caplog.text.count("cannot be used any more (database or disk is full)") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource")
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_that_does_not_fit_on_the_disk_is_one_message_and_nothing_half_written(
    suffix: str, tmp_path: Path
) -> None:
    root = collection(tmp_path / "music")
    output = tmp_path / "out" / f"f{suffix}"
    code = (
        "import resource, signal, sys\nfrom genre_classifier.cli.main import main\n"
        "import genre_classifier.features.output as output\n"
        "write = output.write_extraction\n"
        "def limited(*arguments):\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "    return write(*arguments)\n"
        "output.write_extraction = limited\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = ["extract", str(root), str(output), "--cache", str(tmp_path / "c.sqlite"), "--jobs", "1"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {output} cannot be written: ")
    assert done.stderr.count("\n") == 1
    assert list(output.parent.iterdir()) == []


def test_the_command_lists_what_is_left_out_and_names_a_lost_genre(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = collection(tmp_path / "music")
    for name in ("Rock/a.m4a", "Rock/cover.jpg", "Ska/b.wma"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x" * 100)
    output = tmp_path / "f.csv"
    command = ["extract", str(root), str(output), "--cache", str(cache), "--jobs", "1"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "error: nothing is left of genre 'Ska': 1 file left out: 1 .wma in Ska (unsupported)" in error
    assert f"{tmp_path / 'f.errors.csv'} lists all files" in error
    assert not output.exists()
    (root / "Ska" / "b.wma").unlink()
    (root / "Ska").rmdir()
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "1 file that is not music passed over (1 .jpg)" in captured.err
    assert "1 file left out: 1 .m4a in Rock (unsupported)" in captured.err
    with (tmp_path / "f.errors.csv").open(newline="") as stream:
        [row] = csv.DictReader(stream)
    assert (row["path"], row["kind"]) == (str(root / "Rock" / "a.m4a"), "unsupported")


def test_a_list_that_names_an_unread_suffix_says_so(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "a.wav")
    (tmp_path / "b.m4a").write_bytes(b"\0\0\0\x20ftypM4A " * 50)
    (tmp_path / "list.csv").write_text("path,genre\na.wav,Rock\nb.m4a,Rock\n")
    found = extract(read_list(tmp_path / "list.csv"), Settings(cache=cache, jobs=1, progress=False))
    [(file, failure)] = found.failures
    assert (file.id, failure.kind) == ("b.m4a", "unsupported")
    assert ".m4a is not read; convert it" in failure.reason


def test_without_a_folder_for_caches_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("genre_classifier.features.cache.find_cache_folder", lambda: None)
    root = collection(tmp_path / "music", n_tracks=1)
    found = extract(find_audio(root), Settings(jobs=1, progress=False))
    assert len(found.files) == 2
    assert "no folder for caches can be written: what is measured is not kept" in caplog.text
