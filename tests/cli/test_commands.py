"""What is printed to be pasted means the same to the shell and to Hydra, whatever the names."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from genre_classifier.commands import format_argument, format_command, format_override, format_train_command
from genre_classifier.config.schema import ExportConfig
from genre_classifier.errors import ExportError
from genre_classifier.exporting.choose import choose
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.record import Record
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.sweeps.finish import _describe_end

NAMES = [
    "runs/2026-11-23/14-05-09",
    "a run",
    " around ",
    "epoch=3-step=9.ckpt",
    "~/t.csv",
    "~",
    "#1",
    "t(1).csv",
    "a&b",
    "a;b|c>d<e",
    "it's",
    'say "x"',
    "'quoted'",
    "both ' and \"",
    "Müzik",
    "音楽/ジャズ",
    "a,b",
    "[a]",
    "{a}",
    "{a: b}",
    "a:b",
    "a*?",
    "C:\\music\\",
    "a\\'b",
    "\\",
    "$HOME",
    "${HOME}",
    "${seed}",
    "`id`",
    "$(id)",
    "a!b",
    "100%",
    "null",
    "true",
    "007",
    "1e3",
    "choice(1)",
    "range(1,3)",
    "-m",
    "--help",
    "tab\there",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_is_read_back_as_the_text_it_was(name: str) -> None:
    (word,) = shlex.split(format_argument("ckpt_path", name))
    assert word == format_override("ckpt_path", name)
    override = OverridesParser.create().parse_override(word)
    assert not override.is_sweep_override()
    assert OmegaConf.create({"seed": 42, "ckpt_path": override.value()}).ckpt_path == name


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_passes_the_words_of_a_command_unchanged(name: str, tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text("import sys; sys.stdout.write(repr(sys.argv[1:]))")
    line = format_command(sys.executable, script, "--logdir", name, format_override("sweep", name))
    shown = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert shown.stdout == repr(["--logdir", name, format_override("sweep", name)])


def test_what_needs_no_quotes_has_none() -> None:
    assert format_command(
        "python", "export.py", format_override("run", Path("outputs/runs/2026-11-23/14-05-09"))
    ) == ("python export.py run=outputs/runs/2026-11-23/14-05-09")
    assert format_argument("ckpt_path", "epoch=3.ckpt") == "\"ckpt_path='epoch=3.ckpt'\""
    assert format_train_command(["data.path='a b.csv'", "seed=1,2"], multirun=True) == (
        "python train.py -m \"data.path='a b.csv'\" seed=1,2"
    )


def test_messages_name_folders_as_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(Path("it's a run (1)"))
    folder.checkpoints.mkdir(parents=True)
    folder.last_checkpoint.touch()
    record = Record(folder, {"seed": 1, "optimized_metric": "val/f1"})
    texts = [
        str(record.build_interruption(3)).partition("give the same command and ")[2],
        _describe_end({"finished": 1, "failed": 1}, 2, "it's a sweep, #2").partition("same command and ")[2],  # type: ignore[arg-type]
    ]
    sweep = SweepFolder(Path("Müzik, all"))
    sweep.path.mkdir()
    sweep.write_sweep({"optimized_metric": "val/f1"})
    with pytest.raises(ExportError) as error:
        choose(ExportConfig(sweep=str(sweep.path)))
    texts.append(str(error.value).partition("run it to its end with ")[2])
    found = [
        OverridesParser.create().parse_override(word).value() for text in texts for word in shlex.split(text)
    ]
    assert found == ["it's a run (1)/checkpoints/last.ckpt", "it's a sweep, #2", "Müzik, all"]
