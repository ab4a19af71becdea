"""Train a stack of runs in one Lightning fit. Each member has its own rows, order, loss, optimizer and schedule."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, read_write
from torch import Tensor

from genre_classifier.config.checks import to_train_config
from genre_classifier.config.metrics import Counts
from genre_classifier.config.schema import DataConfig, SplitConfig, TrainConfig
from genre_classifier.data.datamodule import GenreDataModule
from genre_classifier.errors import DivergedError
from genre_classifier.evaluation.metrics import compute_row_sums, compute_scores
from genre_classifier.runs.folder import let_go
from genre_classifier.sweeps.stacked.member import Member
from genre_classifier.sweeps.stacked.memory import compute_limit, divide_by_memory, estimate_cost
from genre_classifier.training.engine.layers import find_refusal
from genre_classifier.training.engine.steps import Engine
from genre_classifier.training.fit import train
from genre_classifier.training.run import Run

log = logging.getLogger(__name__)

SECONDS_BETWEEN_WRITES = 20.0
# The number of steps whose targets and logits are in memory at a time.
CHUNK_STEPS = 100


def train_stack(configs: Sequence[DictConfig], settings: Sequence[TrainConfig] | None = None) -> None:
    """Train several configurations side by side, each into its own run folder.

    An error of one run is recorded in its run.json and does not affect the others.

    Parameters
    ----------
    configs : sequence of DictConfig
        One group of `grouping.group_trials`.
    settings : sequence of TrainConfig, optional
        The same configurations, if they are already checked.
    """
    checked = settings or [to_train_config(cfg) for cfg in configs]
    rows: dict[str, GenreDataModule] = {}
    divided = _divide_by_memory(checked, rows)
    if len(divided) > 1:
        log.info("%d trials are trained %d at a time, as memory allows", len(configs), len(divided[0]))
    for places in divided:
        _train_places([configs[place] for place in places], [checked[place] for place in places], rows)
        for key in list(rows)[1:]:  # the first one keeps the table
            del rows[key]


def _divide_by_memory(settings: Sequence[TrainConfig], rows: dict[str, GenreDataModule]) -> list[list[int]]:
    """Return the trials' places, divided as memory allows. If the rows cannot be read, each trial reports it."""
    data = settings[0].data
    known = rows[repr(data)] = GenreDataModule(data)
    try:
        known.setup()
    except Exception:
        return [list(range(len(settings)))]
    n_rows, n_features = known.table.features.shape
    n_genres = len(known.table.genre_names)
    return divide_by_memory(
        settings,
        lambda own: estimate_cost(own, n_rows, n_features, n_genres, CHUNK_STEPS),
        compute_limit(settings[0]),
    )


def _train_places(
    configs: Sequence[DictConfig], settings: Sequence[TrainConfig], rows: dict[str, GenreDataModule]
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
        runs = [
            run
            for cfg, own in zip(configs, settings, strict=True)
            if (run := _begin_run(cfg, own)) is not None
        ]
        prepared = [run for run in runs if _prepare(run, rows)]
        stacked = [run for run in prepared if find_refusal(run.module.network) is None]
        alone = [run for run in prepared if run not in stacked]
        try:
            if stacked:
                _fit([Member(run) for run in stacked])
        except BaseException as error:
            for run in alone:
                run.record.fail(error)
            raise
        for run in alone:
            _train_alone(run)


def _fit(members: Sequence[Member]) -> None:
    chosen = members[0].run.settings.trainer
    module = StackedModule(members)
    trainer = pl.Trainer(
        accelerator=chosen.accelerator.value,
        devices=1,
        deterministic=chosen.deterministic,
        max_epochs=max(member.max_epochs for member in members),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    try:
        trainer.fit(module, train_dataloaders=module.chunks)
    except SIGTERMException as stopped:
        module.fail(stopped)
        raise
    except SystemExit:
        if not trainer.interrupted:
            raise
        module.fail(KeyboardInterrupt())
        raise KeyboardInterrupt from None
    except Exception as error:
        module.fail(error)
        raise


def _train_alone(run: Run) -> None:
    """Train a run whose network the engine refuses. `train` logs the reason and records errors."""
    log.warning("%s is trained alone: %s", run.folder.path.name, find_refusal(run.module.network))
    cfg = run.cfg.copy()
    with read_write(cfg):
        cfg.ckpt_path = run.settings.ckpt_path
    let_go(run.folder.path)  # `train` locks it again
    try:
        train(cfg)
    except Exception as error:
        log.error("%s: %s", run.folder.path.name, error)


def _begin_run(cfg: DictConfig, settings: TrainConfig) -> Run | None:
    run = Run(cfg, settings)
    try:
        run.record.begin()
    except Exception as error:
        run.record.fail(error)
        return None
    return run


def _prepare(run: Run, rows: dict[str, GenreDataModule]) -> bool:
    """Prepare a run, or record the error. Runs with the same data settings share their rows."""
    try:
        data = run.settings.data
        key = repr(data)
        if key not in rows:
            table = next(
                (known.table for known in rows.values() if _have_same_table(known.config, data)), None
            )
            rows[key] = GenreDataModule(data, table=table)
        run.prepare(rows[key])
    except Exception as error:
        run.record.fail(error)
        return False
    return True


def _have_same_table(first: DataConfig, second: DataConfig) -> bool:
    return replace(first, split=SplitConfig()) == replace(second, split=SplitConfig())


@dataclass(frozen=True, eq=False)
class _Round:
    """The rows of every member in one epoch.

    Parameters
    ----------
    index : Tensor [shape=(member, step * batch_size)]
        Places in the stacked training rows, filled up with 0.
    valid : Tensor of bool, same shape
    n_steps : list of int
        Of each member.
    """

    index: Tensor
    valid: Tensor
    n_steps: list[int]


class StackedModule(pl.LightningModule):
    """Trains members side by side in manual optimization. One training step is a chunk of all members' mini-batches.

    Parameters
    ----------
    members : sequence of Member
        With networks of one shape, one batch size and one family of optimizers.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.members = list(members)
        self.batch_size = members[0].batch_size
        self._written = time.monotonic()

    @property
    def chunks(self) -> _Chunks:
        """Lightning's dataloader: it yields the first step of each chunk."""
        return _Chunks(self)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return no optimizer, because each member has its own."""
        return []

    def on_fit_start(self) -> None:
        """Put the members' weights, optimizer state and rows into the stack."""
        for member in self.members:
            member.attach(self.trainer)
        finished = [member for member in self.members if member.done]
        self.members = [member for member in self.members if not member.done]
        for member in finished:
            self._conclude(member)
        if not self.members:
            self.trainer.should_stop = True
            return
        learners = [member.learner for member in self.members]
        self.engine = Engine(learners, self.batch_size, self.device)
        for number, member in enumerate(self.members):
            if member.ema is not None and member.average is None:
                member.average = self.engine.stack.parameters[number].clone()
        self._gather_rows()
        self._gather_averages()

    def _gather_rows(self) -> None:
        """Put the rows of each split into memory once for all members that train on it."""
        self.splits: dict[str, _SplitTensors] = {}
        offset = 0
        for member in self.members:
            module = member.run.datamodule
            sides = (module.data_split.train.tobytes(), module.data_split.val.tobytes())
            key = f"{module.table.fingerprint}/{hash(sides)}"
            if key not in self.splits:
                features, genres = module.side("train")
                self.splits[key] = _SplitTensors(offset, features, genres, *module.side("val"))
                offset += len(genres)
            member.rows_key = key
        kinds = list(self.splits.values())
        self.train_features = torch.cat([rows.features for rows in kinds]).to(self.device)
        self.train_genres = torch.cat([rows.genres for rows in kinds]).to(self.device)
        for rows in kinds:
            rows.val_features = rows.val_features.to(self.device)
            rows.val_genres = rows.val_genres.to(self.device)

    def _gather_averages(self) -> None:
        """Stack the averaged weights of the members that have them. This is repeated whenever a member leaves."""
        self.averaged = [number for number, member in enumerate(self.members) if member.average is not None]
        if self.averaged:
            self.averages = torch.stack(
                [self._move_average(self.members[number]) for number in self.averaged]
            )
            decays = [member.ema for member in self.members if member.ema is not None]
            self.decays = torch.tensor(decays, device=self.device)[:, None]
            for row, number in enumerate(self.averaged):
                self.members[number].average = self.averages[row]

    def _move_average(self, member: Member) -> Tensor:
        assert member.average is not None
        return member.average.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Draw each member's row order from its own seed and epoch."""
        self._started = time.perf_counter()
        n_steps = [member.steps_an_epoch for member in self.members]
        width = max(n_steps) * self.batch_size
        index = torch.zeros(len(self.members), width, dtype=torch.int64)
        valid = torch.zeros(len(self.members), width, dtype=torch.bool)
        for number, member in enumerate(self.members):
            member.order.set_epoch(member.epoch)
            order = member.order()
            index[number, : len(order)] = order + self.splits[member.rows_key].offset
            valid[number, : len(order)] = True
        self.round = _Round(index.to(self.device), valid.to(self.device), n_steps)
        self.engine.start_epoch([member.epoch for member in self.members], n_steps)

    def training_step(self, first: int, batch_idx: int) -> None:
        """Train every member on the mini-batches of one chunk, beginning at step `first`."""
        size = self.batch_size
        last = min(first + CHUNK_STEPS, max(self.round.n_steps))
        columns = slice(first * size, last * size)
        index = self.round.index[:, columns]
        self.engine.run(
            (self._select_rows(step) for step in range(first, last)),
            self.train_genres[index],
            self.round.valid[:, columns],
            self._finish_step,
        )

    def _select_rows(self, step: int) -> Tensor:
        """Return the features of every member's mini-batch at a step, (member, row, feature)."""
        columns = slice(step * self.batch_size, (step + 1) * self.batch_size)
        features = self.train_features.index_select(0, self.round.index[:, columns].flatten())
        return features.view(len(self.members), self.batch_size, -1)

    def _finish_step(self, active: list[int]) -> None:
        for number in active:
            self.members[number].finish_step()
        if self.averaged:
            self._average_weights(set(active))

    def _average_weights(self, active: set[int]) -> None:
        """Update the averaged weights. The first step of a run sets them."""
        current = self.engine.stack.parameters[self.averaged]
        share = (1.0 - self.decays).clone()
        for row, number in enumerate(self.averaged):
            member = self.members[number]
            if number not in active:
                share[row] = 0.0
                continue
            if member.n_averaged == 0:
                share[row] = 1.0
            member.n_averaged += 1
        self.averages.lerp_(current, share)

    def on_train_epoch_end(self) -> None:
        """Validate, record the epoch of each member, and drop finished members."""
        for member in self.members:
            member.finish_batches()
        values = self._compute_training_metrics()
        by_genre = self._add_validation_metrics(values)
        seconds = (time.perf_counter() - self._started) / len(self.members)
        ended: list[int] = []
        for number, member in enumerate(self.members):
            try:
                member.record_epoch(values[number], by_genre[number], seconds)
            except DivergedError as error:
                member.write_log()
                member.run.record.fail(error)
                ended.append(number)
                continue
            if member.done:
                self._conclude(member)
                ended.append(number)
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self._write_all(set(ended))
        if ended:
            self._drop(set(ended))

    def _compute_training_metrics(self) -> list[dict[str, float]]:
        trained = self.engine.finish_epoch()
        sums = compute_row_sums(trained.logits, trained.genres, trained.valid)
        Counts(sums, trained.logits.shape[2]).loss[:] = trained.loss * trained.valid.sum(dim=1)
        return [
            {f"train/{name}": value for name, value in scores.values.items()}
            for scores in compute_scores(sums, trained.logits.shape[2])
        ]

    def _add_validation_metrics(self, values: list[dict[str, float]]) -> list[dict[str, float]]:
        """Add each member's validation metrics to its values, and return its F1 per genre."""
        by_genre: list[dict[str, float]] = [{} for _ in self.members]
        for key, rows in self.splits.items():
            numbers = [number for number, member in enumerate(self.members) if member.rows_key == key]
            if not numbers or not len(rows.val_genres):
                continue
            logits = self._validate(rows.val_features, numbers)
            genres = rows.val_genres.expand(len(numbers), -1)
            found = compute_scores(compute_row_sums(logits, genres), logits.shape[2])
            for number, scores in zip(numbers, found, strict=True):
                values[number] |= {f"val/{name}": value for name, value in scores.values.items()}
                names = self.members[number].run.module.genre_names
                by_genre[number] = {
                    f"val/f1_by_genre/{name}": f1
                    for name, f1 in zip(names, scores.f1_per_genre.tolist(), strict=True)
                }
        return by_genre

    def _validate(self, features: Tensor, numbers: list[int]) -> Tensor:
        stack = self.engine.stack
        if not self.averaged:
            return stack.logits(features, slice(None) if len(numbers) == len(self.members) else numbers)
        # A single run validates with the averaged weights, if it has them.
        current = stack.parameters.clone()
        stack.parameters[self.averaged] = self.averages
        logits = stack.logits(features, numbers)
        stack.parameters.copy_(current)
        return logits

    def _conclude(self, member: Member) -> None:
        try:
            member.write()
            in_place = member.take_best_weights()
            seconds = sum(row["seconds"] for row in member.history.rows)
            member.run.conclude(member.history.rows, member.best_epoch, seconds, in_place=in_place)
        except Exception as error:
            member.run.record.fail(error)

    def _write_all(self, ended: set[int]) -> None:
        self._written = time.monotonic()
        for number, member in enumerate(self.members):
            if number not in ended:
                try:
                    member.write()
                except Exception as error:
                    member.run.record.fail(error)

    def _drop(self, ended: set[int]) -> None:
        kept = [number for number in range(len(self.members)) if number not in ended]
        self.members = [self.members[number] for number in kept]
        if not kept:
            self.trainer.should_stop = True
            return
        self.engine.keep(kept)
        self._gather_averages()

    def fail(self, error: BaseException) -> None:
        """Record the error in every remaining member's run.json."""
        for member in self.members:
            member.run.record.fail(error)


@dataclass(eq=False)
class _SplitTensors:
    """The rows of one split.

    Parameters
    ----------
    offset : int
        Position of its first training row among the rows of all splits.
    features, genres : Tensor
        Training rows.
    val_features, val_genres : Tensor
    """

    offset: int
    features: Tensor
    genres: Tensor
    val_features: Tensor
    val_genres: Tensor


class _Chunks:
    """Yields the first step of each chunk of an epoch."""

    def __init__(self, module: StackedModule) -> None:
        self.module = module

    def _count_steps(self) -> int:
        return max((member.steps_an_epoch for member in self.module.members), default=1)

    def __len__(self) -> int:
        return -(-self._count_steps() // CHUNK_STEPS)

    def __iter__(self) -> Iterator[int]:
        return iter(range(0, self._count_steps(), CHUNK_STEPS))
