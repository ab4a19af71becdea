"""Names with markup, escape sequences, formulas and unseen letters, from the table to every command's output."""

from __future__ import annotations

import csv
import io
import logging
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from genre_classifier.cli.main import main
from genre_classifier.data.sources import read
from genre_classifier.data.table import FeatureTable, Source
from genre_classifier.errors import DataError
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.predictions import read_predictions
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.terminal import LogFormatter
from tests.conftest import composed, rows_of_music, write_csv
from tests.hostile import is_safe

GENRES = ("[/rock]", "=1+1\x1b[2J", "\u202elive\x9b31m", "<img src=x onerror=alert(1)>")
FEATURES = ("=f0", "f1\x1b]52;c;aGk=\x07", "[/f2]", "@f3\u200b")
FORBIDDEN_IN_HTML = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


@dataclass(frozen=True)
class Made:
    """What the commands are tried on, below a folder whose name is hostile as well."""

    root: Path
    table: Path
    sweep: Path
    bundle: Path
    result: Any

    @property
    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.sweep.glob("*/run.json"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    from genre_classifier.exporting.export import export
    from genre_classifier.training.fit import train

    root = tmp_path_factory.mktemp("hostile") / "[bold]\x1b[31m\u202e"
    root.mkdir()
    _, rows = rows_of_music(genres=GENRES, n_artists=6, n_tracks=4)
    table = write_csv(root / "=rows.csv", ["track", "genre", "artist", *FEATURES], rows)
    sweep = root / "=sweep\x9b"
    overrides = [
        "data=table",
        "data.label=genre",
        "data.group=artist",
        "data.id=track",
        "data.batch_size=16",
        "trainer.max_epochs=2",
        "trainer.enable_progress_bar=false",
        "logger=none",
    ]
    for seed in (1, 2):
        cfg = composed(*overrides, f"seed={seed}")
        cfg.data.path, cfg.run_dir = str(table), str(sweep / str(seed))
        result = train(cfg)
    SweepFolder(sweep).write_sweep(
        {
            "started": "2026-11-26T10:00:00+00:00",
            "overrides": ["seed=1,2", "x=\x1b[2J"],
            "optimized_metric": "val/f1",
            "expected": 2,
            "settings": {},
        }
    )
    cfg = composed("model_name=named", config="export")
    cfg.run, cfg.save_dir = str(sweep / "1"), str(root / "models")
    export(cfg)
    return Made(root, table, sweep, root / "models" / "named", result)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A function that runs the console command and returns its exit code and stdout; all that it prints is safe."""

    def go(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert is_safe(printed.err), printed.err
        return code, printed.out

    return go


def test_a_run_ends_with_its_summary(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    from genre_classifier.training.summary import show

    show(made.result)
    printed = capsys.readouterr().out
    assert is_safe(printed)
    for name in ("[/rock]", "=1+1\\x1b[2J", "\\u202elive\\x9b31m"):
        assert name in printed


@pytest.mark.parametrize(
    "command", ["leaderboard", "compare", "verify", "report", "report a sweep", "baselines"]
)
def test_what_a_command_prints_is_text(
    made: Made, run: Callable[..., tuple[int, str]], command: str, tmp_path: Path
) -> None:
    told: dict[str, Sequence[object]] = {
        "leaderboard": ["leaderboard", made.sweep],
        "compare": ["compare", *made.runs],
        "verify": ["verify", made.bundle],
        "report": ["report", made.runs[0], "--out", made.root / "run.html"],
        "report a sweep": ["report", made.sweep, "--no-rows", "--out", made.root / "sweep.html"],
        "baselines": [
            *("baselines", "--like", made.runs[0], "--models", "majority"),
            *("--out", made.root / "[base]\x1b[2J"),
        ],
    }
    code, printed = run(*told[command])
    assert code == 0
    assert is_safe(printed), printed
    assert printed.strip()


def test_errors_are_text(made: Made, run: Callable[..., tuple[int, str]]) -> None:
    for arguments in (
        ["leaderboard", made.root / "none\x1b[2J"],
        ["verify", made.root / "none\x1b[2J"],
        ["compare", made.runs[0], made.root / "\x07"],
        ["report", made.root / "\u202e"],
        ["predict", "--features", "1,\x1b[2J", "--bundle", made.bundle],
        ["predict", made.root / "\x9bsong.wav", "--bundle", made.bundle],
        ["extract", made.root / "\x1b[2J", made.root / "\x1b.csv"],
        ["baselines", "--like", made.root / "\x1b[2J"],
    ):
        assert run(*arguments)[0] == 1


def test_extracted_names_are_text_and_come_back(made: Made, run: Callable[..., tuple[int, str]]) -> None:
    soundfile = pytest.importorskip("soundfile", reason="needs the extra audio")
    noise = np.random.default_rng(0).normal(0, 0.1, 22050)
    for genre in ("=1+1", "[x]\x1b[2J"):
        for number in range(2):
            folder = made.root / "music" / genre / f"-artist{number}"
            folder.mkdir(parents=True)
            soundfile.write(folder / f"@\u202e{number}.wav", noise * (number + 1), 22050)
    (made.root / "music" / "=1+1" / "\x9bsilent.wav").write_bytes(b"no sound")
    for suffix in ("csv", "parquet"):
        target = made.root / f"=extracted\x1b.{suffix}"
        cache = made.root / "cache"
        told = ("extract", made.root / "music", target, "--duration", "1", "--cache", cache, "--jobs", "1")
        code, printed = run(*told)
        assert code == 0
        assert is_safe(printed)
        cfg = composed("data=table", "data.label=genre", "data.group=group", "data.id=id")
        cfg.data.path = str(target)
        table = read(OmegaConf.to_object(cfg.data))
        assert table.genre_names == ("=1+1", "[x]\x1b[2J")
        assert any(name.startswith("=1+1/-artist0/@") for name in table.ids)
    for path in made.root.glob("=extracted*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            cells = [cell for row in csv.reader(stream) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "@", "+"))]


def test_predictions_are_text_as_json_and_as_csv(made: Made, run: Callable[..., tuple[int, str]]) -> None:
    import json

    code, printed = run("predict", "--features", "1,2,3,4", "--bundle", made.bundle)
    assert code == 0
    assert is_safe(printed)
    assert set(json.loads(printed)["all_probabilities"]) == set(GENRES)
    code, printed = run("predict", "--table", made.table, "--bundle", made.bundle)
    assert code == 0
    for row in csv.reader(io.StringIO(printed, newline="")):
        assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in row)


def test_every_csv_file_has_no_formula_and_is_read_back_as_it_was(
    made: Made, run: Callable[..., tuple[int, str]]
) -> None:
    board = made.root / "leaderboard.csv"
    assert run("leaderboard", made.sweep, "--by", "data.path", "--csv", board)[0] == 0
    files = [board, *made.root.rglob("predictions.csv"), *made.root.rglob("history.csv")]
    assert len(files) >= 5
    for path in files:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.reader(stream):
                for cell in row:
                    if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
                        float(cell)
    found = read_predictions(RunFolder(made.runs[0]))
    assert found is not None
    table = read(composed_data(made))
    assert set(found.genre_names) == set(GENRES) == set(table.genre_names)
    assert set(found.ids) <= set(table.ids)
    assert any(name.startswith("=") for name in found.ids)


def composed_data(made: Made):  # type: ignore[no-untyped-def]
    from genre_classifier.runs.configuration import read_configuration

    return OmegaConf.to_object(read_configuration(RunFolder(made.runs[0])).data)


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_a_report_holds_neither_markup_nor_letters_that_act(
    made: Made, run: Callable[..., tuple[int, str]], kind: str
) -> None:
    target = made.root / f"{kind}-page.html"
    folder = made.runs[0] if kind == "run" else made.sweep
    assert run("report", folder, "--out", target, *([] if kind == "run" else ["--no-rows"]))[0] == 0
    text = target.read_text(encoding="utf-8")
    assert not FORBIDDEN_IN_HTML.search(text)
    assert "<img" not in text
    assert "&lt;img src=x" in text
    assert "\\u202elive\\x9b31m" in text


def test_a_runs_log_is_text(made: Made) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter("%(message)s"))
    logger = logging.getLogger("genre_classifier")
    logger.addHandler(handler)
    try:
        features = np.zeros((4, 2), dtype=np.float32)
        features[:, 0] = range(4)
        FeatureTable(
            features=features,
            genres=np.array([0, 1, 0, 1]),
            feature_names=("f", "constant\x1b[2J"),
            genre_names=("a", "b"),
            ids=np.array(list("wxyz"), dtype=object),
            source=Source("made", "", "", ""),
            where="\u202etable",
        )
    finally:
        logger.removeHandler(handler)
    assert "constant" in stream.getvalue()
    assert is_safe(stream.getvalue())


@pytest.mark.parametrize("place", ["genre_names", "feature_names", "ids", "groups", "group_name"])
def test_half_a_surrogate_pair_is_refused_where_names_enter(place: str) -> None:
    given = {
        "features": np.arange(8, dtype=np.float32).reshape(4, 2),
        "genres": np.array([0, 1, 0, 1]),
        "feature_names": ("f", "g"),
        "genre_names": ("a", "b"),
        "ids": np.array(list("wxyz"), dtype=object),
        "groups": np.array(list("1122"), dtype=object),
        "group_name": "artist",
        "source": Source("made", "", "", ""),
    }
    broken = "x\ud83c"
    given[place] = (
        broken
        if place == "group_name"
        else (broken, *given[place][1:])
        if isinstance(given[place], tuple)
        else np.array([broken, *given[place][1:]], dtype=object)
    )
    with pytest.raises(DataError, match=r"'x\\ud83c' holds half of a surrogate pair, .*; rename it"):
        FeatureTable(**given)  # type: ignore[arg-type]


def test_the_check_of_these_tests_knows_the_letters() -> None:
    assert not any(map(is_safe, ("\x1b", "\u202e", "\r")))
    assert is_safe("┏━ é ジャズ\n")
    assert unicodedata.category("\x9b") == "Cc"
