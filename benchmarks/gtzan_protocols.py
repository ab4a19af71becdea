r"""Compare networks and baselines on the same rows: GTZAN with disjoint artists and random folds, and the demo data.

    python benchmarks/gtzan_protocols.py --table features_30_sec.csv \
        --train train_filtered.txt --test valid_filtered.txt

The networks are the default recipe and `experiment=gtzan`. gtzan_recipe.py chose that recipe on the training file's
rows. The baselines are those of `genre-classifier baselines`. They choose their settings inside the training rows.
All models train on all rows that are not tested. Only the default recipe keeps 15 of 85 rows for early stopping.
Nothing is chosen on test rows. Mean and standard deviation are over seeds, and with folds over the folds' seeds too.
The verdict is `genre-classifier compare` of the recipe and the model, on accuracy. The slow models run with one seed
of the folds.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from machine import describe, table
from omegaconf import DictConfig, OmegaConf

from genre_classifier.baselines.fit import build_baseline_config, divide_table, run_baseline
from genre_classifier.baselines.models import select_baselines
from genre_classifier.config.schema import register_schemas
from genre_classifier.data.sources import read
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.ranking.comparison import compare
from genre_classifier.sweeps.stacked.fit import train_stack

ROOT = Path(__file__).resolve().parents[1]
RECIPE = "network, experiment=gtzan"
NETWORKS = {"network, default": ["data=demo"], RECIPE: ["experiment=gtzan"]}
ALL_ROWS = ["data.split.train=0.85", "data.split.val=0", "data.split.test=0.15"]
SLOW = ("forest", "boosting")
MEMBERS = 64


@dataclass(frozen=True)
class Protocol:
    """One test protocol.

    Parameters
    ----------
    name : str
    overrides : tuple of str
    folds : int
        Number of folds; 0 if the test rows are given.
    dealings : tuple of int
        Seeds of the folds.
    """

    name: str
    overrides: tuple[str, ...]
    folds: int
    dealings: tuple[int, ...]

    def list_divisions(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the fold seed and the overrides of each division."""
        for dealing, fold in itertools.product(self.dealings, range(self.folds or 1)):
            folds = [f"data.split.folds={self.folds}", f"data.split.fold={fold}"] if self.folds else []
            yield dealing, [*self.overrides, *folds, f"data.split.seed={dealing}"]


def compose_quietly(overrides: Sequence[str], folder: Path) -> DictConfig:
    quiet = ["logger=none", "trainer.enable_progress_bar=false", f"run_dir={folder}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", [*overrides, *quiet])


def train_networks(protocol: Protocol, name: str, seeds: Sequence[int], folder: Path) -> None:
    configs = []
    for number, (dealing, overrides) in enumerate(protocol.list_divisions()):
        for seed in [dealing] if protocol.folds else seeds:
            to = folder / str(dealing) / f"{number}-{seed}"
            configs.append(compose_quietly([*NETWORKS[name], *overrides, f"seed={seed}"], to))
    for start in range(0, len(configs), MEMBERS):
        train_stack(configs[start : start + MEMBERS])


def fit_baselines(protocol: Protocol, name: str, seeds: Sequence[int], folder: Path) -> None:
    (baseline,) = select_baselines([name])
    known = None
    for number, (dealing, overrides) in enumerate(protocol.list_divisions()):
        if name in SLOW and dealing != protocol.dealings[0]:
            continue
        for seed in [dealing] if protocol.folds else seeds if baseline.seeded else seeds[:1]:
            cfg = compose_quietly([*NETWORKS[RECIPE], *overrides, *ALL_ROWS, f"seed={seed}"], folder)
            data = OmegaConf.to_object(cfg.data)
            known = known or read(data)
            to = folder / str(dealing) / f"{number}-{seed}"
            run_baseline(
                baseline, build_baseline_config(cfg, baseline, seed, to), divide_table(known, data), jobs=2
            )


def format_scores(protocol: Protocol, folder: Path) -> list[str]:
    """Return mean and deviation of accuracy and weighted F1 over fold seeds, or over seeds."""
    values: dict[str, list[dict[str, float]]] = {}
    for path in sorted(folder.glob("*/*/metrics.json")):
        key = path.parent.parent.name if protocol.folds else path.parent.name
        values.setdefault(key, []).append(RunFolder(path.parent).read_metrics()["test"])
    cells = []
    for metric in ("accuracy", "f1"):
        column = [statistics.fmean(run[metric] for run in runs) for runs in values.values()]
        spread = f" ± {statistics.stdev(column):.3f}" if len(column) > 1 else ""
        cells.append(f"{statistics.fmean(column):.3f}{spread}")
    return cells


def format_verdict(protocol: Protocol, recipe: Path, model: Path) -> str:
    """Return the verdict of `genre-classifier compare` on the recipe and a model, for the first fold seed."""
    if recipe == model:
        return ""
    dealing = str(protocol.dealings[0])
    found = compare(recipe / dealing, model / dealing, "train/f1")
    accuracy = found.differences[0]
    interval = f"{accuracy.difference:+.3f} ({accuracy.low:+.3f} to {accuracy.high:+.3f})"
    if not found.distinguishable:
        return f"not distinguishable {interval}"
    return f"recipe {'better' if accuracy.difference > 0 else 'worse'} {interval}"


def make_folder_name(name: str) -> str:
    """Return a name as a folder name that needs no quotes in an override."""
    return re.sub(r"\W+", "-", name)


def build_protocols(options: argparse.Namespace) -> Iterator[Protocol]:
    gtzan = ["data=gtzan", f"data.path={options.table}"]
    files = [f"data.split.files.train={options.train}", f"data.split.files.test={options.test}"]
    yield Protocol("GTZAN, artists disjoint", (*gtzan, *files), 0, (42,))
    yield Protocol("GTZAN, random 10-fold", tuple(gtzan), 10, tuple(options.dealings))
    yield Protocol("demo data, grouped 5-fold", ("data=demo",), 5, tuple(options.dealings))


def main() -> None:
    """Print a table for each protocol."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("table", "train", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--dealings", type=int, nargs="+", default=[1, 2, 3])
    everything = ["majority", "logistic", "knn", "svc", "forest", "boosting"]
    parser.add_argument("--baselines", nargs="*", choices=everything, default=everything, metavar="MODEL")
    parser.add_argument("--protocols", type=int, nargs="+", choices=range(3), default=range(3), metavar="N")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    register_schemas()
    torch.set_num_threads(1)
    print(describe())
    with tempfile.TemporaryDirectory() as temporary:
        for protocol in (list(build_protocols(options))[number] for number in options.protocols):
            print(f"\n{protocol.name}", flush=True)
            lines = []
            root = Path(temporary) / make_folder_name(protocol.name)
            for name in [*reversed(NETWORKS), *options.baselines]:
                started = time.perf_counter()
                train = train_networks if name in NETWORKS else fit_baselines
                train(protocol, name, options.seeds, root / make_folder_name(name))
                line = [
                    name,
                    *format_scores(protocol, root / make_folder_name(name)),
                    format_verdict(protocol, root / make_folder_name(RECIPE), root / make_folder_name(name)),
                ]
                lines.append(line)
                print(f"{line}, {time.perf_counter() - started:.0f} s", flush=True)
            print("\n" + table(["model", "accuracy", "weighted F1", "recipe against it"], lines))


if __name__ == "__main__":
    main()
