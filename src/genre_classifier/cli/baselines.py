"""The subcommand ``genre-classifier baselines``. Imports nothing heavy before it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_classifier.commands import advise_to_install
from genre_classifier.errors import ConfigError, TrialFailedError
from genre_classifier.terminal import say

if TYPE_CHECKING:
    from genre_classifier.baselines.fit import DividedTable
    from genre_classifier.baselines.models import Baseline
    from genre_classifier.baselines.plan import Division
    from genre_classifier.runs.sweep_folder import SweepFolder

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings of data and seed, as train.py takes them: data.label=genre data/split=grouped seed=1",
    )
    parser.add_argument("--data", metavar="SOURCE", help="demo, audio_folder, fma, gtzan or table")
    parser.add_argument("--path", metavar="FILE", help="short for data.path=FILE")
    parser.add_argument(
        "--like",
        metavar="FOLDER",
        type=Path,
        help="the rows, splits and seeds of this run, or of a sweep's runs",
    )
    parser.add_argument(
        "--models", nargs="+", metavar="MODEL", help="such as svc forest; default all installed"
    )
    parser.add_argument("--folds", metavar="N", type=int, help="run every fold of data.split.folds=N")
    parser.add_argument("--seeds", nargs="+", metavar="SEED", help="of the models that draw at random")
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="for the run folders, default outputs/baselines/DATE/TIME"
    )
    parser.add_argument("--jobs", metavar="N", type=int, help="processes, default one for each core")


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One baseline on one division of the rows.

    Parameters
    ----------
    name : str
        Name of its run folder.
    baseline : Baseline
    division : Division
    seed : int
    """

    name: str
    baseline: Baseline
    division: Division
    seed: int


def run(options: argparse.Namespace) -> None:
    """Run the subcommand. It writes a run folder per model and division, and a leaderboard."""
    from genre_classifier.baselines.models import BASELINES, select_baselines

    divisions, models, jobs = _read_options(options)
    baselines = select_baselines(models)
    rows = _read_rows(divisions)
    planned = _plan_runs(baselines, divisions)
    for line in _list_remarks(
        baselines, divisions, [] if models else [one for one in BASELINES if not one.installed]
    ):
        say(line)
    folder = _claim(options.out, planned)
    interrupted = _run_all(planned, rows, folder, jobs)
    failed = _finish(folder)
    if interrupted:
        say(f"interrupted; what is finished is kept in {folder.path}", error=True)
        raise SystemExit(INTERRUPTED)
    if failed:
        raise TrialFailedError(f"{failed} of {len(planned)} runs failed; the others are finished")


def _read_options(options: argparse.Namespace) -> tuple[list[Division], list[str] | None, int]:
    """Return the divisions, the models' names and the number of processes."""
    from genre_classifier.baselines.plan import build_data_overrides, compose_divisions, read_divisions
    from genre_classifier.machine.processors import count_usable_cores
    from genre_classifier.runs.listing import format_unreadable

    # argparse adds the settings that follow an option of several values to its values.
    models, late = _separate_settings(options.models)
    seed_texts, later = _separate_settings(options.seeds)
    seeds = None if seed_texts is None else [_parse_seed(text) for text in seed_texts]
    overrides = [*build_data_overrides(options.data, options.path), *options.overrides, *late, *later]
    for name, value in (("--jobs", options.jobs), ("--folds", options.folds)):
        if value is not None and value < (least := 1 if name == "--jobs" else 2):
            raise ConfigError(f"{name} {value}: expected at least {least}")
    if options.like is None:
        divisions = compose_divisions(overrides, options.folds, seeds)
    elif overrides or options.folds is not None:
        given = overrides[0] if overrides else f"--folds {options.folds}"
        raise ConfigError(f"--like {options.like} and {given} both choose the rows; remove one of the two")
    else:
        divisions = read_divisions(options.like, seeds)
        say(*format_unreadable(divisions.unreadable), error=True)
    return divisions, models, options.jobs or count_usable_cores()


def _separate_settings(words: Sequence[str] | None) -> tuple[list[str] | None, list[str]]:
    """Return an option's own values, and the settings that argparse added to them."""
    values = [word for word in words or () if "=" not in word]
    return values or None, [word for word in words or () if "=" in word]


def _parse_seed(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise ConfigError(f"--seeds {text}: expected whole numbers, as in --seeds 1 2 3")
    return int(text)


def _read_rows(divisions: Sequence[Division]) -> list[DividedTable]:
    """Read and divide the rows of every division, each table once. Mistakes are found before anything runs."""
    from genre_classifier.baselines.fit import divide_table
    from genre_classifier.data.sources import read

    tables: dict[str, Any] = {}
    found = []
    for division in divisions:
        if division.table not in tables:
            tables[division.table] = read(division.data)
        found.append(divide_table(tables[division.table], division.data))
    return found


def _plan_runs(baselines: Sequence[Baseline], divisions: Sequence[Division]) -> list[PlannedRun]:
    """Return the runs, division by division. A model without randomness runs once per division."""
    splits = list(dict.fromkeys(division.without_fold for division in divisions))
    found = []
    for division in divisions:
        for one in baselines:
            seeds = sorted(set(division.seeds)) if one.seeded else division.seeds[:1]
            for seed in seeds:
                words = [one.name]
                if len(splits) > 1:
                    words.append(f"split{splits.index(division.without_fold)}")
                if division.fold is not None:
                    words.append(f"fold{division.fold}")
                if len(seeds) > 1:
                    words.append(f"seed{seed}")
                found.append(PlannedRun("-".join(words), one, division, seed))
    return found


def _list_remarks(
    baselines: Sequence[Baseline], divisions: Sequence[Division], missing: Sequence[Baseline]
) -> Iterator[str]:
    if missing:
        advice = advise_to_install(*(one.extra or "" for one in missing))
        yield f"not installed: {', '.join(one.name for one in missing)}; {advice}"
    fixed = [one.name for one in baselines if not one.seeded]
    if fixed and any(len(division.seeds) > 1 for division in divisions):
        yield f"one seed for {', '.join(fixed)}: nothing in them is drawn at random, every seed gives the same"


def _claim(wanted: Path | None, planned: Sequence[PlannedRun]) -> SweepFolder:
    from genre_classifier import __version__
    from genre_classifier.runs.folder import claim
    from genre_classifier.runs.sweep_folder import SweepFolder

    now = datetime.now().astimezone()
    default = Path("outputs/baselines") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}"
    folder = SweepFolder(claim(wanted or default, exact=wanted is not None))
    folder.write_sweep(
        {
            "started": now.isoformat(timespec="seconds"),
            "genre_classifier": __version__,
            "sweeper": "genre-classifier baselines",
            "launcher": "genre-classifier baselines",
            "overrides": sys.argv[1:],
            "swept": {},
            "optimized_metric": str(planned[0].division.cfg.optimized_metric),
            "expected": len(planned),
            "settings": {},
        }
    )
    return folder


def _run_all(
    planned: Sequence[PlannedRun], rows: Sequence[DividedTable], folder: SweepFolder, jobs: int
) -> bool:
    """Run the baselines one after the other. Return whether Ctrl-C ended them."""
    from tqdm import tqdm

    ordered = list(dict.fromkeys(id(job.division) for job in planned))
    rows_by_division = dict(zip(ordered, rows, strict=True))
    with tqdm(total=len(planned), unit="run", desc="baselines", leave=False, disable=None) as bar:
        for number, job in enumerate(planned, start=1):
            bar.set_postfix_str(job.name)
            try:
                outcome = _run_one(job, rows_by_division[id(job.division)], folder, jobs)
            except KeyboardInterrupt:
                return True
            with tqdm.external_write_mode(file=sys.stderr):
                say(f"{number}/{len(planned)}  {job.name:<16} {outcome}", error=True)
            bar.update()
    return False


def _run_one(job: PlannedRun, rows: DividedTable, folder: SweepFolder, jobs: int) -> str:
    """Run a baseline and return a line with its result. If it fails, its run.json has the reason."""
    from genre_classifier.baselines.fit import build_baseline_config, run_baseline

    cfg = build_baseline_config(job.division.cfg, job.baseline, job.seed, folder.path / job.name)
    try:
        run = run_baseline(job.baseline, cfg, rows, jobs=jobs)
    except Exception as error:  # a model may raise anything; the other models still run
        return f"failed: {type(error).__name__}: {error}".splitlines()[0]
    chosen = _format_settings(run["baseline"]["chosen"])
    return f"{cfg.optimized_metric} {run['objective']:.4f}  {run['seconds']:.1f} s  {chosen}".rstrip()


def _format_settings(chosen: Mapping[str, Any]) -> str:
    from genre_classifier.config.settings import format_value

    return " ".join(f"{name}={format_value(value)}" for name, value in chosen.items())


def _finish(folder: SweepFolder) -> int:
    """Write and print the leaderboard, and return how many runs are not finished."""
    from genre_classifier.commands import format_command
    from genre_classifier.runs.folder import shorten_path
    from genre_classifier.runs.listing import format_unreadable, read_each
    from genre_classifier.runs.ranking.leaderboard import rank_trials, read_trial
    from genre_classifier.runs.ranking.out_of_fold import write_out_of_fold
    from genre_classifier.runs.ranking.tables import show_leaderboard, write_leaderboard, write_trials

    trials = read_each(folder.trials(), read_trial)
    boards = rank_trials(trials, folder.read_sweep()["optimized_metric"])
    if boards:
        write_leaderboard(folder.leaderboard_csv, boards)
        write_trials(folder.trials_csv, boards)
    for board in boards:
        show_leaderboard(board)
    if len(boards) == 1 and write_out_of_fold(folder, boards) is not None:
        say(f"out of fold  {shorten_path(folder.out_of_fold_csv)}")
    say(*format_unreadable(trials.unreadable))
    where = shorten_path(folder.path)
    say(f"run folders  {where}")
    say(f"with others  {format_command('genre-classifier', 'leaderboard', where, 'outputs/runs')}")
    return sum(trial.status != "finished" for trial in trials) + len(trials.unreadable)
