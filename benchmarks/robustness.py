"""Does the same song stay the same? Two feature sets side by side on the demo clips, and what helps against loudness.

    python benchmarks/robustness.py FOLDER [--tracks 5]

The demo clips are by 24 artists. FOLDER/music gets the first tracks of the other 136, rendered by rule as the demo
table's were (680 clips of 8 s). Every bundle is trained on the tracks in it with the default network, artists disjoint,
and `genre-classifier robustness` then changes the 24 clips, by artists that none of them has heard:

- core20, and musicnn (`genre-classifier download musicnn` first);
- core20 without rms and mfcc_1, the features that follow the loudness (`data.features=[...]`);
- both sets, each training clip with two copies that are 10 and 20 dB quieter.

What it costs to leave the two features out is measured by five folds of the whole demo table.

What is in FOLDER is not made again. Processor time: rendering 2 minutes, musicnn's features 4, those of the copies 8,
the changed clips 1, training 2.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from statistics import fmean

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from machine import describe, table  # noqa: E402

from genre_classifier.evaluation.paired_tests import run_corrected_t_test  # noqa: E402
from genre_classifier.features.sets import CORE20, SAMPLE_RATE  # noqa: E402
from genre_classifier.features.spectral.core20 import extract_core20  # noqa: E402
from genre_classifier.reporting.robustness.changes import CHANGES  # noqa: E402
from genre_classifier.reporting.robustness.check import decode  # noqa: E402
from genre_classifier.runs.ranking.leaderboard import find_trials  # noqa: E402
from tools.demo.compose import compose, meet_artist  # noqa: E402
from tools.demo.genres import GENRES  # noqa: E402
from tools.demo.make import N_ARTISTS, SEED, clip_name, clip_tracks  # noqa: E402
from tools.demo.render import render  # noqa: E402

QUIETER_DB = (-10, -20)
LOUDNESS = ("rms", "mfcc_1")
# name of the bundle: folder of the training clips, feature set, features left out
BUNDLES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "core20": ("music", "core20", ()),
    "core20-without-loudness": ("music", "core20", LOUDNESS),
    "core20-quieter-copies": ("copies", "core20", ()),
    "musicnn": ("music", "musicnn", ()),
    "musicnn-quieter-copies": ("copies", "musicnn", ()),
}


def write_whole(path: Path, samples: np.ndarray, subtype: str) -> None:
    """Write a WAV file, whole or not at all, unless it is there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unnamed = path.with_suffix(".part")
    soundfile.write(unnamed, samples, SAMPLE_RATE, format="WAV", subtype=subtype)
    unnamed.replace(path)


def render_training_clips(folder: Path, n_tracks: int) -> None:
    """Write FOLDER/GENRE/ARTIST/TRACK.wav of all artists but those of the demo clips."""
    from tqdm import tqdm

    held_out = {(genre, artist) for genre, artist, _ in clip_tracks(SEED, N_ARTISTS)}
    wanted = [
        (genre, artist, track)
        for genre in GENRES
        for artist in range(1, N_ARTISTS + 1)
        for track in range(1, n_tracks + 1)
        if (genre, artist) not in held_out
    ]
    for genre, artist, track in tqdm(wanted, desc="rendering"):
        path = folder / genre / meet_artist(SEED, genre, artist).id.replace("/", "-") / f"{track:02d}.wav"
        if not path.exists():
            write_whole(path, render(compose(SEED, genre, artist, track)), "PCM_16")


def add_quieter_copies(music: Path, copies: Path) -> None:
    """Put each training clip into another folder, and its quieter copies beside it."""
    for path in sorted(music.rglob("*.wav")):
        target = copies / path.relative_to(music)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(path, target)
        samples, _ = soundfile.read(path, dtype="float32")
        for decibels in QUIETER_DB:
            quieter = (samples * 10 ** (decibels / 20)).astype(np.float32)
            write_whole(target.with_name(f"{path.stem}{decibels:+d}dB.wav"), quieter, "FLOAT")


def copy_demo_clips(folder: Path) -> None:
    """Put the 24 shipped clips into FOLDER/GENRE, so that it is known which genre each has."""
    shipped = Path(str(files("genre_classifier.demo"))) / "clips"
    for genre, artist, track in clip_tracks(SEED, N_ARTISTS):
        (folder / genre).mkdir(parents=True, exist_ok=True)
        shutil.copy(shipped / clip_name(genre, artist, track), folder / genre)


def run_command(*words: object) -> None:
    """Run one of the project's commands; its output is shown if it fails."""
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def make_bundle(folder: Path, name: str) -> None:
    """Extract, train and export, unless the bundle is there."""
    clips, features, left_out = BUNDLES[name]
    if (folder / "models" / f"{name}.pt").exists():
        return
    rows, run_folder = folder / f"{clips}-{features}.parquet", folder / "runs" / name
    command = ("-m", "genre_classifier")
    if not rows.exists():
        run_command(
            *command,
            "extract",
            folder / clips,
            rows,
            "--features",
            features,
            "--cache",
            folder / "cache.sqlite",
        )
    shutil.rmtree(run_folder, ignore_errors=True)
    chosen = [feature for feature in CORE20.features if feature not in left_out]
    run_command(
        *(ROOT / "train.py", "data=table", f"data.path={rows}", "data.label=genre", "data.group=group"),
        *("data.id=id", "logger=none", "trainer.enable_progress_bar=false", f"hydra.run.dir={run_folder}"),
        *([f"data.features=[{','.join(chosen)}]"] if left_out else []),
    )
    run_command(
        *(ROOT / "export.py", f"run={run_folder}", f"save_dir={folder / 'models'}", f"model_name={name}"),
        "onnx=false",
    )


def cross_validate(folder: Path, left_out: tuple[str, ...]) -> tuple[dict[int, float], float]:
    """Return the test accuracy of each fold of the whole demo table, and the ratio of test to training rows.

    Five folds, no artist on two sides, each the mean over three seeds.
    """
    chosen = [feature for feature in CORE20.features if feature not in left_out]
    rows = Path(str(files("genre_classifier.demo"))) / "features.parquet"
    if not (folder / "trials.csv").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run_command(
            *(ROOT / "train.py", "-m", "hparams_search=cross_validation", "hydra/launcher=stacked"),
            *("data=table", f"data.path={rows}", "data.label=genre", "data.group=artist", "data.id=id"),
            *(
                f"data.features=[{','.join(chosen)}]",
                "seed=1,2,3",
                "logger=none",
                f"hydra.sweep.dir={folder}",
            ),
        )
    accuracies: dict[int, list[float]] = {}
    trials = list(find_trials([folder]))
    for trial in trials:
        accuracies.setdefault(int(trial.settings["data.split.fold"]), []).append(
            trial.metrics["test/accuracy"]
        )
    means = {fold: fmean(values) for fold, values in sorted(accuracies.items())}
    return means, fmean(trial.rows["test"] / trial.rows["train"] for trial in trials)


def check(folder: Path, name: str) -> list[dict[str, str]]:
    """Return the lines of a bundle's table."""
    csv_path, figure = folder / f"{name}.csv", folder / f"{name}.png"
    bundle = folder / "models" / name
    run_command(
        *("-m", "genre_classifier", "robustness", bundle, folder / "clips"),
        *("--csv", csv_path, "--figure", figure),
    )
    with csv_path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def measure_moves(folder: Path) -> list[list[str]]:
    """Return how far each change moves core20's features, in standard deviations between the demo clips."""
    sounds = [decode(path) for path in sorted((folder / "clips").rglob("*.ogg"))]
    before = np.stack([extract_core20(sound.samples) for sound in sounds])
    lines = []
    for name in ("gain -20 dB", "gain -10 dB", "gain +6 dB"):
        after = np.stack([extract_core20(CHANGES[name].apply(sound, 0).samples) for sound in sounds])
        moved = np.abs((after - before) / before.std(axis=0)).mean(axis=0)
        of = dict(zip(CORE20.features, moved, strict=True))
        others = max(value for feature, value in of.items() if feature not in LOUDNESS)
        lines.append([name, *(f"{of[feature]:.2f}" for feature in LOUDNESS), f"{others:.2f}"])
    return lines


def main() -> None:
    """Make what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where clips, features, runs, bundles and tables go")
    parser.add_argument(
        "--tracks", type=int, default=5, help="of each training artist (default: %(default)s)"
    )
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    print(describe(), flush=True)
    render_training_clips(folder / "music", chosen.tracks)
    add_quieter_copies(folder / "music", folder / "copies")
    copy_demo_clips(folder / "clips")
    tables = {}
    for name in BUNDLES:
        make_bundle(folder, name)
        tables[name] = check(folder, name)
        print(f"{name} is checked", flush=True)
    for what, cells in (
        ("share of clips with another genre", lambda row: f"{float(row['share']):.2f}"),
        ("mean change of confidence", lambda row: f"{float(row['confidence_change']):+.2f}"),
        ("accuracy after", lambda row: f"{float(row['accuracy_after']):.2f}"),
    ):
        lines = [
            [name, *(cells(rows[place]) for rows in tables.values())] for place, name in enumerate(CHANGES)
        ]
        if what == "accuracy after":
            before = [f"{float(rows[0]['accuracy_before']):.2f}" for rows in tables.values()]
            lines.insert(0, ["as it is", *before])
        print(f"\n{what}\n{table(['change', *tables], lines)}")
    header = ["change", *LOUDNESS, "the most that another feature moves"]
    print(f"\ncore20's features, moved by standard deviations\n{table(header, measure_moves(folder))}")
    whole, overlap = cross_validate(folder / "folds" / "core20", ())
    without, _ = cross_validate(folder / "folds" / "core20-without-loudness", LOUDNESS)
    test = run_corrected_t_test([without[fold] - whole[fold] for fold in whole], overlap)
    print(
        f"\nthe whole demo table, five folds: accuracy {fmean(whole.values()):.3f}, without {' and '.join(LOUDNESS)} "
        f"{fmean(without.values()):.3f}, difference {test.mean:+.3f} ± {test.half_width:.3f} (95 %)"
    )


if __name__ == "__main__":
    main()
