"""Resume a run from a checkpoint: check which settings may change, and copy the earlier run's files.

A resumed run gives the result of a run that had its settings from the start. A change that cannot is refused.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger

from genre_classifier.config.schema import TrainConfig
from genre_classifier.config.settings import PATHS, is_about_the_machine
from genre_classifier.data.splits import Split
from genre_classifier.errors import CheckpointError
from genre_classifier.files.atomic import replacing
from genre_classifier.files.home import expand_home
from genre_classifier.runs.folder import RunFolder, read_checkpoint, writing
from genre_classifier.training.callbacks import History, RunCheckpoint, build_early_stopping
from genre_classifier.training.lit_module import GenreLitModule, check_training_state
from genre_classifier.training.loggers import SplitTensorBoardLogger

log = logging.getLogger(__name__)

# The keys of a checkpoint for the settings of its run and for its split.
SETTINGS_KEY = "genre_classifier_settings"
SPLIT_KEY = "genre_classifier_split"
# The history of the finished epochs is enough to apply these again, or they only decide when the training ends.
MAY_CHANGE = (
    "optimized_metric",
    "trainer.max_epochs",
    "trainer.min_epochs",
    "trainer.max_time",
    "callbacks.early_stopping",
    "callbacks.checkpoint",
)
# These are about the machine, but they decide which rows an optimizer step takes.
OF_THE_STEP = ("trainer.devices", "trainer.num_nodes")
NOT_SET = "not set"


def may_change(key: str) -> bool:
    """Return whether a resumed run may have another value of a setting."""
    if key in OF_THE_STEP:
        return False
    if is_about_the_machine(key) or key in PATHS:  # the files' contents are compared instead
        return True
    return any(key == name or key.startswith(f"{name}.") for name in MAY_CHANGE)


def select_recorded_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a checkpoint keeps, by flat names: those that say what is computed."""
    return {
        key: value for key, value in settings.items() if key in OF_THE_STEP or not is_about_the_machine(key)
    }


def compute_split_digest(split: Split) -> dict[str, str]:
    """Return a digest of each side's rows. Two splits share all digests exactly when they have the same sides."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(rows, dtype=np.int64).data).hexdigest()
        for name, rows in split.sides().items()
    }


@dataclass(frozen=True, eq=False)
class Resumption:
    """A checkpoint that a run continues, with the settings of its run.

    Parameters
    ----------
    path : Path
    content : dict
        The checkpoint.
    recorded : mapping of str to Any
        The earlier run's settings by flat names, as far as the checkpoint contains them.
    changed : mapping of str to tuple
        The earlier and the present value of each setting that differs.
    """

    path: Path
    content: dict[str, Any]
    recorded: Mapping[str, Any]
    changed: Mapping[str, tuple[Any, Any]]

    @property
    def n_epochs(self) -> int:
        """The number of finished epochs."""
        return int(self.content["epoch"]) + 1

    @property
    def history(self) -> History:
        """The earlier run's history."""
        return _read_history(self.content)

    @classmethod
    def of(cls, settings: TrainConfig, now: Mapping[str, Any]) -> Resumption | None:
        """Return the checkpoint that ``ckpt_path`` names; None if ckpt_path is null.

        Parameters
        ----------
        settings : TrainConfig
        now : mapping of str to Any
            The same settings by flat names.

        Raises
        ------
        CheckpointError
            It cannot be read, or it cannot continue with this run's settings.
        """
        if settings.ckpt_path is None:
            return None
        path = expand_home(settings.ckpt_path)
        content = read_checkpoint(path)
        recorded = content.get(SETTINGS_KEY)
        if recorded is None:
            recorded = _read_known_settings(content["hyper_parameters"])
            log.warning(
                "%s was written by an earlier version, which recorded no settings of data, trainer and callbacks: "
                "they are taken to be as they were",
                path,
            )
        changed = dict(_find_differences(recorded, select_recorded_settings(now)))
        if refused := {key: values for key, values in changed.items() if not may_change(key)}:
            raise CheckpointError(_describe_refusal(settings, refused))
        found = cls(path, content, recorded, changed)
        found._check_length(settings, now)
        return found

    def _check_length(self, settings: TrainConfig, now: Mapping[str, Any]) -> None:
        """Raise CheckpointError if max_epochs has passed, or if a schedule ends before the training does."""
        max_epochs, done = settings.trainer.max_epochs, self.n_epochs
        if max_epochs < done:
            raise CheckpointError(
                f"ckpt_path={settings.ckpt_path}: {done} epochs are done, trainer.max_epochs={max_epochs} is fewer; "
                f"set trainer.max_epochs={done} or more, or train a new run without ckpt_path"
            )
        before = int(self.recorded.get("trainer.max_epochs") or done)
        horizon = now.get("scheduler.T_max") if now.get("scheduler.interval") == "epoch" else None
        if horizon is not None and before <= horizon < max_epochs:
            raise CheckpointError(
                f"ckpt_path={settings.ckpt_path}: its learning rate reaches its end with epoch {horizon} "
                f"(scheduler.T_max={horizon}) and would climb again until trainer.max_epochs={max_epochs}; keep "
                f"trainer.max_epochs={horizon}, or train a new run without ckpt_path"
            )
        if settings.callbacks.early_stopping is None:
            return
        stopped = build_early_stopping(settings).replay(self.history.rows)
        end = None if stopped is None else max(stopped + 1, settings.trainer.min_epochs or 1)
        if end is not None and end < done:
            raise CheckpointError(
                f"ckpt_path={settings.ckpt_path}: {done} epochs are done, and with callbacks.early_stopping.patience="
                f"{settings.callbacks.early_stopping.patience} the run would have ended after {end}; set a larger "
                "patience or trainer.min_epochs, or train a new run without ckpt_path"
            )

    def is_complete(self, settings: TrainConfig) -> bool:
        """Return whether the training has ended, by the number of epochs or by early stopping."""
        if self.n_epochs >= settings.trainer.max_epochs:
            return True
        if settings.callbacks.early_stopping is None or self.n_epochs < (settings.trainer.min_epochs or 1):
            return False
        return build_early_stopping(settings).replay(self.history.rows) is not None

    def check_data(self, module: GenreLitModule, split: Split) -> None:
        """Compare network, rows and split with the checkpoint's.

        Raises
        ------
        CheckpointError
            They differ.
        """
        saved = self.content["hyper_parameters"]
        found = {name: module.hparams[name] for name in ("network", "feature_names", "genre_names", "scaler")}
        differing = [name.replace("_", " ") for name, value in found.items() if saved.get(name) != value]
        if not differing:
            before, now = saved.get("data") or {}, module.hparams["data"] or {}
            if before.get("fingerprint", now["fingerprint"]) != now["fingerprint"]:
                differing = ["table"]
            elif self.content.get(SPLIT_KEY, compute_split_digest(split)) != compute_split_digest(split):
                differing = ["division of the rows"]
        if differing:
            raise CheckpointError(
                f"ckpt_path={self.path}: its {' and '.join(differing)} differs from this run's, so it cannot be "
                "resumed; use the data of the run it comes from (see .hydra/overrides.yaml there)"
            )
        try:
            check_training_state(self.content, module)
        except ValueError as error:
            raise CheckpointError(f"ckpt_path={self.path}: {error}; it cannot be resumed") from error

    def bring_along(self, folder: RunFolder, settings: TrainConfig, logger: Logger | None) -> None:
        """Copy the earlier run's history, checkpoints and curves into a run's folder, if they are not there yet.

        Raises
        ------
        CheckpointError
            The weights of the best epoch are neither in the checkpoint nor beside it.
        """
        history = self.history
        folder.write_history(history.rows)
        if settings.callbacks.checkpoint is not None:
            self._bring_checkpoints(folder, settings)
        has_curves = isinstance(logger, SplitTensorBoardLogger) and any(folder.tensorboard.rglob("events.*"))
        if logger is None or has_curves:
            return
        for row in history.rows:
            values = {name: value for name, value in row.items() if name not in {"step", "seconds"}}
            values |= history.by_genre.get(int(row["epoch"]), {})
            logger.log_metrics(values, step=int(row["step"]) - 1)
        logger.save()

    def _bring_checkpoints(self, folder: RunFolder, settings: TrainConfig) -> None:
        assert settings.callbacks.checkpoint is not None
        keeper = RunCheckpoint(folder, settings.callbacks.checkpoint.monitor)
        keeper.replay(self.history.rows)
        best = self._find_best_checkpoint(keeper.best_epoch, is_complete=self.is_complete(settings))
        if best is None:
            raise CheckpointError(
                f"ckpt_path={self.path}: the weights of the best epoch so far, {keeper.best_epoch} by "
                f"{keeper.monitor}, are neither in it nor in a best.ckpt of the same run beside it; put that file "
                "there, or let the last epoch count as the best with callbacks.checkpoint.monitor=null"
            )
        with writing(folder.checkpoints):
            folder.checkpoints.mkdir(parents=True, exist_ok=True)
        for target, source in ((folder.best_checkpoint, best), (folder.last_checkpoint, self.path)):
            if not (target.exists() and target.samefile(source)):
                with writing(target), replacing(target) as temporary:
                    shutil.copyfile(source, temporary)

    def _find_best_checkpoint(self, best_epoch: int | None, *, is_complete: bool) -> Path | None:
        if best_epoch == self.content["epoch"]:
            return self.path
        beside = self.path.with_name("best.ckpt")
        if not beside.is_file():
            return None
        best = read_checkpoint(beside)
        # best.ckpt can be ahead if the run was killed between its two files. The training gets there again.
        ahead = best["epoch"] > self.content["epoch"] and not is_complete
        fits = best["epoch"] == best_epoch and self._is_of_the_same_run(best)
        return beside if fits or ahead else None

    def _is_of_the_same_run(self, best: Mapping[str, Any]) -> bool:
        ours = [row for row in self.history.rows if row["epoch"] <= best["epoch"]]
        theirs = _read_history(best).rows
        return best["hyper_parameters"] == self.content["hyper_parameters"] and [
            {**row, "seconds": 0.0} for row in ours
        ] == [{**row, "seconds": 0.0} for row in theirs]


def check_best(path: Path, best_epoch: int | None) -> None:
    """Raise CheckpointError if a resumed run's best.ckpt is not of the best epoch in its history."""
    found = read_checkpoint(path)["epoch"]
    if found != best_epoch:
        raise CheckpointError(
            f"{path}: has the weights of epoch {found}, but epoch {best_epoch} is the best one; resume with the "
            "best.ckpt of the same run beside last.ckpt, or with callbacks.checkpoint.monitor=null"
        )


def _read_history(content: Mapping[str, Any]) -> History:
    history = History(RunFolder(Path()))
    history.load_state_dict(content["callbacks"][history.state_key])
    return history


def _read_known_settings(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a checkpoint of any version contains."""
    known = {"seed": hparams["seed"]}
    known |= {f"loss.{name}": hparams[name] for name in ("label_smoothing", "mixup")}
    of_the_data = {"input_dim", "num_classes"}
    known |= {f"model.{name}": value for name, value in hparams["network"].items() if name not in of_the_data}
    known |= {f"optimizer.{name}": value for name, value in hparams["optimizer"].items()}
    if hparams["scheduler"] is None:
        return known | {"scheduler": None}
    return known | {f"scheduler.{name}": v for name, v in hparams["scheduler"].items() if name != "mode"}


def _find_differences(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield the settings whose values differ, with both values.

    A setting that only one side has counts if the other side's group is null or of another class.
    """
    for key in dict.fromkeys([*before, *now]):
        if key in before and key in now:
            if _convert_to_lists(before[key]) != _convert_to_lists(now[key]):
                yield key, (before[key], now[key])
        elif key in now:
            if _is_a_choice(key, before, now):
                yield key, (_explain_absence(key, before), now[key])
        elif _is_a_choice(key, now, before):
            yield key, (before[key], _explain_absence(key, now))


def _is_a_choice(key: str, without: Mapping[str, Any], present: Mapping[str, Any]) -> bool:
    """Return whether a setting is missing by choice. It may also be missing because another version has none."""
    parent = key.rpartition(".")[0]
    if _explain_absence(key, without) is None:
        return True
    classes = [f"{parent}.{name}" for name in ("_target_", "source")]
    return any(name in without and name in present and without[name] != present[name] for name in classes)


def _explain_absence(key: str, settings: Mapping[str, Any]) -> Any:
    """Return None if a group of the key is null, else NOT_SET."""
    names = key.split(".")
    if any(settings.get(".".join(names[:n]), NOT_SET) is None for n in range(1, len(names))):
        return None
    return NOT_SET


def _convert_to_lists(value: Any) -> Any:
    return [_convert_to_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _describe_refusal(settings: TrainConfig, refused: Mapping[str, tuple[Any, Any]]) -> str:
    lines = []
    for key, (before, now) in refused.items():
        is_length = key in {"scheduler.T_max", "scheduler.epochs"} and now == settings.trainer.max_epochs
        follows = "; it follows trainer.max_epochs" if is_length else ""
        lines.append(f"  - {key}={_format_value(before)}, now {_format_value(now)}{follows}")
    listed = "\n".join(lines)
    return (
        f"ckpt_path={settings.ckpt_path}: a run goes on with the settings it began with, and these differ:\n{listed}\n"
        "give them as they were, or train a new run without ckpt_path"
    )


def _format_value(value: Any) -> str:
    return "null" if value is None else str(value)
