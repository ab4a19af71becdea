"""The commands of README and docs, run as written, on small stand-ins for the files they name and for few steps.

Trainings run one by one. The other commands of a page run in its order, in one folder that holds finished runs.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genre_classifier.baselines.models import select_baselines
from genre_classifier.cli.main import main
from genre_classifier.demo import __file__ as demo_file
from genre_classifier.features.sets import CORE20, GTZAN57
from genre_classifier.runs.sweep_folder import SweepFolder
from tests.conftest import ROOT, composed, rows_of_music, write_csv
from tests.data.fma_layout import write_fma
from tests.docs.blocks import BLOCKS, PAGES, RUN_BLOCKS, blocks_of
from tests.reporting.conftest import train_into

README = (ROOT / "README.md").read_text(encoding="utf-8")
OF_EXAMPLES = ("docs/adding-",)  # test_examples.py runs these on changed copies of the package
TRAIN, OTHER = "python train.py", ("genre-classifier ", "python export.py")
COMMANDS = [
    (block, command)
    for block in RUN_BLOCKS
    if not block.page.startswith(OF_EXAMPLES)
    for command in block.commands()
]
TRAININGS = list(dict.fromkeys(command for _, command in COMMANDS if command.startswith(TRAIN)))
# A command that stands on several pages runs once; but a bundle is exported on each page that uses one.
_first = {command: block.page for block, command in reversed(COMMANDS)}
OTHERS_OF_PAGE = {
    page.relative_to(ROOT).as_posix(): [
        command
        for block, command in COMMANDS
        if block.page == page.relative_to(ROOT).as_posix()
        and command.startswith(OTHER)
        and (_first[command] == block.page or command == "python export.py")
    ]
    for page in PAGES
}
PAGES_WITH_OTHERS = [page for page, commands in OTHERS_OF_PAGE.items() if commands]
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "logger=none"]


def write_stand_ins(folder: Path, *, with_audio: bool) -> None:
    """Write small files with the names that the pages use."""
    rng = np.random.default_rng(0)
    tracks = [f"{genre}.{number:05d}" for genre in ("blues", "jazz", "rock") for number in range(12)]
    rows = [[f"{track}.wav", 661794, *rng.normal(size=57), track.partition(".")[0]] for track in tracks]
    write_csv(folder / "features_30_sec.csv", ["filename", "length", *GTZAN57.features, "label"], rows)
    for name, wanted in (("train_filtered.txt", range(8)), ("valid_filtered.txt", range(8, 12))):
        chosen = [track for track in tracks if int(track[-5:]) in wanted]
        (folder / name).write_text("\n".join(f"{t.partition('.')[0]}/{t}.wav" for t in chosen))
    header, music = rows_of_music()
    table = pd.DataFrame(music, columns=header)
    for name in ("my (1).csv", "a.csv", "b.csv"):
        table.to_csv(folder / name, index=False)
    table["split"] = np.tile(["train", "train", "train", "val", "test"], len(table) // 5)
    table.to_parquet(folder / "my.parquet")
    demo = pd.read_parquet(Path(demo_file).parent / "features.parquet")
    demo[["id", *CORE20.features]].iloc[::300].to_csv(folder / "new.csv", index=False)
    write_fma(folder / "fma_metadata")
    if with_audio:
        from tests.features.sounds import collection, write  # skips where the extra audio is not installed

        collection(folder / "music", n_tracks=5)
        write_csv(
            folder / "list.csv",
            ["path", "genre"],
            [["music/Jazz/0.wav", "Jazz"], ["music/Rock/1.wav", "Rock"]],
        )
        write(folder / "song.mp3")
        write(folder / "other.flac")


@pytest.fixture
def stand_ins(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that a page names, to stand in."""
    words = request.node.callspec.params.get("command", "")
    write_stand_ins(tmp_path, with_audio="music/" in words)
    if "musicnn" in words or ("experiment=pretrained" in words and "data=" not in words):
        kept = tmp_path / "cache" / "genre-classifier"
        kept.mkdir(parents=True)
        shutil.copy(request.getfixturevalue("musicnn_weights"), kept)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs under the names that the pages use: two runs, a sweep and a baseline of the demo data, and a bundle."""
    folder = tmp_path_factory.mktemp("finished")
    outputs = folder / "outputs"
    for time, seed in (("14-05-09", 42), ("14-12-30", 1)):
        train_into(outputs / "runs" / "2026-11-23" / time, [*SHORT, f"seed={seed}"])
    sweep = outputs / "sweeps" / "2026-11-23" / "14-05-09"
    for number, dropout in enumerate((0.1, 0.3)):
        train_into(sweep / str(number), [*SHORT, f"model.dropout={dropout}"])
    SweepFolder(sweep).write_sweep(
        {
            "started": "2026-11-23T14:05:09+00:00",
            "overrides": ["model.dropout=0.1,0.3"],
            "optimized_metric": "val/f1",
            "expected": 2,
            "settings": {},
        }
    )
    baselines = outputs / "baselines" / "2026-11-23" / "15-00-00"
    assert main(["baselines", "--models", "majority", "--out", str(baselines)]) == 0
    (baselines / "majority").rename(baselines / "svc")
    return folder


def test_each_shell_block_runs_or_says_why_not() -> None:
    for block in RUN_BLOCKS:
        for command in block.commands():
            assert command.startswith((TRAIN, *OTHER)), (
                f"{block}: no test runs {command!r}; write <!-- not run: REASON --> before the block"
            )
    for block in BLOCKS:
        if block.reason is not None:
            assert block.is_shell, f"{block}: is marked as not run, and is no shell block"
            for test in re.findall(r"tests/[\w/]+\.py", block.reason):
                assert (ROOT / test).is_file(), f"{block}: {test}"


def test_no_command_hides_outside_a_shell_block() -> None:
    commands = re.compile(
        r"^\s*(?:\$ )?(?:python|genre-classifier|make|pip|tensorboard|curl) .*$", re.MULTILINE
    )
    for page in PAGES:
        shown = [
            f"{block}: {line}" for block in blocks_of(page) if block.language == "" for line in [block.text]
        ]
        assert not shown, "a block without a language"
        outside = page.read_text(encoding="utf-8")
        for block in blocks_of(page):
            outside = outside.replace(block.text, "")
        indented = [line for line in outside.splitlines() if line.startswith("    ") and commands.match(line)]
        assert not indented, page.name
    for block in BLOCKS:
        if block.language == "text":
            assert all(TYPO in found for found in re.findall(r"^\$ .*$", block.text, re.MULTILINE)), str(
                block
            )


TYPO = "$ python train.py model.dropuot=0.3"


def test_the_mistake_that_the_pages_show_gets_that_answer(capsys: pytest.CaptureFixture[str]) -> None:
    from genre_classifier.config.checks import find_problems
    from genre_classifier.config.messages import explain_error

    pages = [block.text for block in BLOCKS if TYPO in block.text]
    assert pages
    with pytest.raises(Exception, match="dropuot") as refused:
        find_problems(composed("model.dropuot=0.3"))
    assert all(f"error: {explain_error(refused.value)}" in text for text in pages)


def test_the_tour_is_found() -> None:
    assert len(TRAININGS) >= 20
    assert any("-m" in shlex.split(line) for line in TRAININGS)
    assert len(PAGES_WITH_OTHERS) >= 5


@pytest.mark.parametrize("command", TRAININGS)
def test_a_train_command_runs(command: str, stand_ins: Path) -> None:
    from genre_classifier.training.fit import train

    words = shlex.split(command)[2:]
    if "-m" in words:
        # One trial of the sweep; tests/e2e/test_sweep_command.py runs whole ones.
        words = [
            word
            for word in words
            if word != "-m" and not word.startswith(("hydra", "+hydra", "sweep.resume"))
        ]
        words = [re.sub(r"=range\((\d+),.*", r"=\1", word) for word in words]
        words = [re.sub(r"(=[^,\[]+),.*", r"\1", word) for word in words]
    if "trainer=ddp" in words:
        words = ["trainer=cpu"]  # two processes are tested with a command of their own
    words = [
        "trainer=cpu" if word == "trainer=gpu" else word for word in words
    ]  # tests/training/test_gpu.py has one
    result = train(composed(*words, *SHORT, f"run_dir={stand_ins}/run"))
    assert result is not None
    assert result.folder.read_run()["status"] == "finished"


@pytest.mark.parametrize("page", PAGES_WITH_OTHERS)
def test_the_other_commands_of_a_page_run_in_its_order(
    page: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = OTHERS_OF_PAGE[page]
    write_stand_ins(tmp_path, with_audio=bool(re.search(r"song\.|music/|list\.csv", " ".join(wanted))))
    shutil.copytree(finished / "outputs", tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for command in wanted:
        words = shlex.split(command)
        if words[0] == "python":
            export_as(words[2:])
        else:
            assert main(shortened(words[1:])) == 0, command


def export_as(words: list[str]) -> None:
    """Export as export.py would, without Hydra's logging."""
    from genre_classifier.exporting.export import export
    from genre_classifier.service.model import predict_in_process

    made = export(composed(*words, config="export"), ask_service=predict_in_process)
    assert all(path.exists() for path in made.paths.values())


def shortened(words: list[str]) -> list[str]:
    """Put a quick model in the place of the slow ones, and measure in this process."""
    if words[0] in {"extract", "robustness"} and "--jobs" not in words:
        return [*words, "--jobs", "1"]
    if words[0] != "baselines":
        return words
    if "--models" not in words:
        return [*words, "--models", "majority"]
    first = words.index("--models") + 1
    last = next((at for at in range(first, len(words)) if words[at].startswith("--")), len(words))
    select_baselines(words[first:last])  # they exist
    return [*words[:first], "majority", *words[last:]]


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "python" and block.caption is None], ids=str
)
def test_a_python_block_runs(
    block: object, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished / "outputs", tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    export_as(["onnx=false"])
    exec(compile(block.text, str(block), "exec"), {"features": [0.0] * 20})  # type: ignore[attr-defined]


def test_make_train_passes_its_arguments_on() -> None:
    plan = subprocess.run(
        ["make", "--dry-run", "--always-make", "train", "ARGS=model.dropout=0.3"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout
    assert "bin/python train.py model.dropout=0.3" in plan
    assert "-c constraints.txt" in plan


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:src|conf|tests|benchmarks|tools|docs)/[\w./-]+)`", text):
        path = ROOT / name
        made = any(block.caption == name for block in blocks_of(page))
        assert path.exists() or made or path.parent.name == "local" or "_build" in name, name
    for name in re.findall(r"!?\[[^\]]*\]\(([\w./-]+)(?:#[\w-]+)?\)", text):
        assert (page.parent / name).exists(), name


def test_the_readme_lists_the_config_groups() -> None:
    rows = re.findall(r"^\| `([\w/]+)` \| (.+) \|$", README, flags=re.MULTILINE)
    groups = {group: set(re.findall(r"`(\w+)`", options)) for group, options in rows}
    assert len(groups) >= 9
    for group, options in groups.items():
        files = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        assert files == {option for option in options if option in files}, group


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "docs" / "design.md"], ids=lambda page: page.name
)
def test_the_code_map_names_each_room(page: Path) -> None:
    rows = "\n".join(line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| "))
    for path in (ROOT / "src" / "genre_classifier").iterdir():
        if not path.name.startswith("_") and (path.is_dir() or path.suffix == ".py"):
            assert re.search(rf"(`|\*\*){re.escape(path.name)}(`|\*\*)", rows), path.name


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_is_longer_than_two_screens_without_a_heading(page: Path) -> None:
    since = 0
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        inside ^= line.startswith("```")
        since = 0 if line.startswith("#") and not inside else since + 1
        assert since <= 80, f"{page.name}: {line}"
