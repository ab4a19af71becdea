"""The run folder on disk. Only this module knows its file names and format."""

from __future__ import annotations

import atexit
import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf

from genre_classifier.errors import BundleError, CheckpointError, RunFolderError
from genre_classifier.files.atomic import write_text
from genre_classifier.files.csv_files import format_csv, read_csv
from genre_classifier.files.documents import read_bytes, read_versioned_json, read_yaml
from genre_classifier.runs.record_shapes import check_metrics, check_run

if TYPE_CHECKING:
    from filelock import BaseFileLock

FORMAT_VERSION = 1
MAX_SETTINGS = 400_000  # values in a checkpoint's settings; 10,000 features take 50,000
CHECKPOINT_VERSION_KEY = "genre_classifier_format_version"
Status = Literal["running", "finished", "failed"]


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Parameters
    ----------
    path : Path
        Hydra's output directory of the run.
    """

    path: Path

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def config_yaml(self) -> Path:
        return self.path / ".hydra" / "config.yaml"

    @property
    def hydra_yaml(self) -> Path:
        return self.path / ".hydra" / "hydra.yaml"

    @property
    def overrides_yaml(self) -> Path:
        return self.path / ".hydra" / "overrides.yaml"

    @property
    def metrics_json(self) -> Path:
        return self.path / "metrics.json"

    @property
    def history_csv(self) -> Path:
        return self.path / "history.csv"

    @property
    def predictions_csv(self) -> Path:
        return self.path / "predictions.csv"

    @property
    def scaler(self) -> Path:
        return self.path / "scaler.pkl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best_checkpoint(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    def write_run(self, record: Mapping[str, Any]) -> None:
        """Write run.json."""
        self._write_json(self.run_json, record)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json."""
        self._write_json(self.metrics_json, metrics)

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write history.csv, one row per epoch. A missing value is an empty cell."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        self._write_csv(self.history_csv, names, ([row.get(name, "") for name in names] for row in rows))

    def write_predictions(self, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write predictions.csv."""
        self._write_csv(self.predictions_csv, names, rows)

    def read_run(self) -> dict[str, Any]:
        """Return the content of run.json, with checked types.

        Raises
        ------
        RunFolderError
            The file is missing or damaged.
        """
        content = self._read_json(self.run_json)
        check_run(content, self.run_json)
        return content

    def read_metrics(self) -> dict[str, Any]:
        """Return the content of metrics.json, with checked types.

        Raises
        ------
        RunFolderError
            The file is missing or damaged.
        """
        content = self._read_json(self.metrics_json)
        check_metrics(content, self.metrics_json)
        return content

    def read_predictions(self) -> dict[str, tuple[str, list[float]]]:
        """Return the content of predictions.csv: per id, the true genre and one probability per genre.

        Raises
        ------
        RunFolderError
            The file is missing or damaged.
        """
        header, rows = self.read_prediction_rows()
        try:
            first = next(i for i, name in enumerate(header) if name.startswith("p_"))
            return {row[0]: (row[2], [float(cell) for cell in row[first:]]) for row in rows}
        except (ValueError, IndexError, StopIteration) as error:
            raise RunFolderError(f"{self.predictions_csv}: cannot be read ({error})") from error

    def read_prediction_rows(self) -> tuple[list[str], list[list[str]]]:
        """Return predictions.csv as text: the column names and the rows.

        Raises
        ------
        RunFolderError
            The file is missing or damaged.
        """
        path = self.predictions_csv
        try:
            header, *rows = read_csv(path)
        except (OSError, ValueError, csv.Error) as error:
            raise RunFolderError(f"{path}: cannot be read ({error})") from error
        return header, rows

    def read_settings(self) -> dict[str, Any]:
        """Return the configuration at the run's start. Interpolations stay text.

        Raises
        ------
        RunFolderError
            The file is missing or damaged.
        """
        path = self.config_yaml
        try:
            content = read_yaml(path)
        except FileNotFoundError:
            raise RunFolderError(f"{path}: there is no such file; it is written when a run starts") from None
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise RunFolderError(f"{path}: expected a mapping of settings")
        return content

    def read_overrides(self) -> tuple[str, ...]:
        """Return the overrides of the run's command line. There are none if Hydra did not start the run.

        Raises
        ------
        RunFolderError
            The file is damaged.
        """
        path = self.overrides_yaml
        try:
            content = read_yaml(path)
        except FileNotFoundError:
            return ()
        if not isinstance(content, list) or not all(isinstance(item, str) for item in content):
            raise RunFolderError(f"{path}: expected a list of overrides")
        return tuple(content)

    def read_working_folder(self) -> Path | None:
        """Return the folder that the run's relative paths start from; None if it is not recorded."""
        found = self.read_run().get("working_folder")
        if found is None:  # a run of an earlier version; Hydra recorded the folder
            try:
                found = read_yaml(self.hydra_yaml)["hydra"]["runtime"]["cwd"]
            except (FileNotFoundError, RunFolderError, LookupError, TypeError):
                return None
        return Path(found) if isinstance(found, str) else None

    def write_config(self, cfg: DictConfig) -> None:
        """Write the configuration of a run that Hydra did not start, to the file where Hydra writes it."""
        with writing(self.config_yaml):
            self.config_yaml.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.config_yaml, OmegaConf.to_yaml(cfg))

    def _write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        text = json.dumps({"format_version": FORMAT_VERSION, **content}, indent=2, ensure_ascii=False)
        with writing(path):
            write_text(path, text + "\n")

    def _write_csv(self, path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        text = format_csv(names, rows)
        with writing(path):
            write_text(path, text)

    def _read_json(self, path: Path) -> dict[str, Any]:
        return read_versioned_json(path, FORMAT_VERSION, kind="run", example="outputs/runs/DATE/TIME")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise RunFolderError, with the reason and a remedy, if the block cannot write `path`."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another place "
            "with hydra.run.dir=FOLDER (hydra.sweep.dir for a sweep)"
        ) from error
    except (
        UnicodeEncodeError
    ) as error:  # Python keeps a byte of a file's name that is not UTF-8 as half a surrogate pair
        before, after = error.object[: error.start], error.object[error.start :]
        name = before.rpartition('"')[2][-100:] + after.partition('"')[0][:100]
        raise RunFolderError(
            f"cannot write {path}: it would hold {name!r}, which is not UTF-8; rename that file or folder"
        ) from error


def shorten_path(path: Path) -> Path:
    """Return a path relative to the folder of the command; unchanged or absolute if it is outside."""
    from genre_classifier.config.settings import get_start_folder

    start = get_start_folder()
    try:
        return path.absolute().relative_to(start)
    except ValueError:
        return path if start == Path.cwd() else path.absolute()


_held: dict[Path, BaseFileLock] = {}
_in_use: set[Path] = set()


def hold(folder: Path, *, to_train: bool = False) -> None:
    """Lock a folder against other processes, until `let_go` or the end of this process.

    Parameters
    ----------
    folder : Path
        An existing folder.
    to_train : bool
        Whether a training begins. A process can have one training at a time in a folder.

    Raises
    ------
    RunFolderError
        Another run has locked it.
    """
    from filelock import FileLock, Timeout

    key = folder.resolve()
    if key not in _held:
        lock = FileLock(key / ".lock")
        with writing(folder):
            try:
                lock.acquire(timeout=0)
            except Timeout:  # which is an OSError
                raise RunFolderError(_describe_taken(folder)) from None
        _held[key] = lock
    if to_train:
        if key in _in_use:
            raise RunFolderError(_describe_taken(folder))
        _in_use.add(key)


def let_go(folder: Path) -> None:
    """Unlock a folder that `hold` locked."""
    key = folder.resolve()
    _in_use.discard(key)
    if (lock := _held.pop(key, None)) is not None:
        # The file is removed first, because after the release it may belong to another process.
        (key / ".lock").unlink(missing_ok=True)
        lock.release()


@atexit.register
def _let_all_go() -> None:
    for folder in list(_held):
        let_go(folder)


def _describe_taken(folder: Path) -> str:
    return (
        f"{folder}: another run is at work in this folder; choose a folder that does not exist yet, or wait for that "
        "run, or stop it"
    )


def claim(wanted: Path, *, exact: bool) -> Path:
    """Make a folder for a run or sweep and return it. No other process gets the same folder.

    Parameters
    ----------
    wanted : Path
        The folder to make.
    exact : bool
        True if the user chose this folder. It may exist, but must not hold a run or sweep. False if its name is the
        time: a second run in the same second gets the next free name (``14-05-09-2``).

    Raises
    ------
    RunFolderError
        The folder cannot be made, or the chosen folder holds a run or sweep, or another process has locked it.
    """
    with writing(wanted):
        if exact:
            wanted.mkdir(parents=True, exist_ok=True)
            _refuse_used(wanted)
            hold(wanted)
            try:
                _refuse_used(wanted)  # a run may have begun and ended in between
            except RunFolderError:
                let_go(wanted)
                raise
            return wanted
        wanted.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder


def _refuse_used(folder: Path) -> None:
    for name in ("run.json", "multirun.yaml", "sweep.json"):
        if (folder / name).exists():
            raise RunFolderError(
                f"{folder} already holds a {'run' if name == 'run.json' else 'sweep'} ({name}): "
                "choose a folder that does not exist yet"
            )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint as values and tensors. Nothing in the file is executed, and sizes in it are checked.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or no checkpoint of this project.
    """
    from genre_classifier.files.torch_file import (  # imports numpy, which other readers do not need
        MAX_BYTES,
        load_torch_file,
    )

    try:
        content = read_bytes(path, MAX_BYTES, CheckpointError)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: there is no such checkpoint; a run's checkpoints are in its folder checkpoints/"
        ) from None
    checkpoint = load_torch_file(content, path, CheckpointError)
    version = checkpoint.get(CHECKPOINT_VERSION_KEY) if isinstance(checkpoint, dict) else None
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: {CHECKPOINT_VERSION_KEY} is {version!r:.80}, this version reads {FORMAT_VERSION}; it was "
            "written by something else, or by another version of genre-classifier"
        )
    try:
        _check_content(checkpoint)
    except (ValueError, BundleError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return checkpoint


def _check_content(checkpoint: Mapping[str, Any]) -> None:
    """Raise ValueError or BundleError unless a checkpoint's settings have the documented types."""
    from genre_classifier.data.scaler_state import ScalerStatistics
    from genre_classifier.files.torch_file import check_plain

    for key in ("epoch", "global_step"):
        if type(checkpoint.get(key)) is not int or not 0 <= checkpoint[key] < 2**40:
            raise ValueError(f"its {key} is not a count")
    settings, weights = checkpoint.get("hyper_parameters"), checkpoint.get("state_dict")
    if not isinstance(settings, dict) or not isinstance(weights, dict):
        raise ValueError("it has no hyper_parameters or no state_dict")
    check_plain(settings, "hyper_parameters", most=MAX_SETTINGS)
    check_plain(settings.get("network"), "the network's settings")
    for key in ("loops", "genre_classifier_settings"):  # a resumed training uses these
        if not isinstance(checkpoint.get(key, {}), dict):
            raise ValueError(f"its {key} are a {type(checkpoint[key]).__name__}, not a mapping")
        check_plain(checkpoint.get(key), key, most=MAX_SETTINGS)
    callbacks = checkpoint.get("callbacks", {})
    if not isinstance(callbacks, dict) or not all(isinstance(state, dict) for state in callbacks.values()):
        raise ValueError("its callbacks are no mappings")
    kinds = {
        "network": (dict,),
        "optimizer": (dict,),
        "scheduler": (dict, type(None)),
        "data": (dict, type(None)),
        "protocol": (dict, type(None)),
        "class_weights": (list, type(None)),
        "seed": (int,),
    }
    for key, allowed in kinds.items():
        if type(settings.get(key)) not in allowed:
            raise ValueError(
                f"its {key} is a {type(settings.get(key)).__name__}, not a {allowed[0].__name__}"
            )
    for key in ("genre_names", "feature_names"):
        names = settings.get(key)
        if not isinstance(names, list) or not names or not all(type(name) is str for name in names):
            raise ValueError(f"its {key} is not a list of names")
    ScalerStatistics.from_metadata(settings.get("scaler"), "its hyper_parameters")
