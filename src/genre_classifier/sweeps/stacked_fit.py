"""Training a stack of runs in one Lightning fit: each member with its own rows, order, loss, optimizer and schedule."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig
from torch import Tensor

from genre_classifier.config import DataConfig, SplitConfig, TrainConfig, typed
from genre_classifier.data.batches import mixed_seed
from genre_classifier.data.datamodule import GenreDataModule
from genre_classifier.errors import DivergedError
from genre_classifier.evaluation.member_metrics import member_scores
from genre_classifier.sweeps.member import Member
from genre_classifier.sweeps.memory import cost, limit_of, parts
from genre_classifier.sweeps.stack import Stack
from genre_classifier.training.fused_step import FUSED
from genre_classifier.training.objective import Targets, loss_gradient, row_losses, target_table
from genre_classifier.training.run import Run

log = logging.getLogger(__name__)

SECONDS_BETWEEN_WRITES = 20.0
# Steps whose targets and logits are held at a time.
CHUNK_STEPS = 100
SETTINGS = {
    "adam": ("lr", "betas", "eps", "weight_decay"),
    "sgd": ("lr", "momentum", "dampening", "nesterov", "weight_decay"),
}
STATE = {"adam": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}


def train_stack(configs: Sequence[DictConfig], settings: Sequence[TrainConfig] | None = None) -> None:
    """Train several configurations side by side, each into its own run folder.

    What goes wrong with one is recorded in its run.json and leaves the others alone.

    Parameters
    ----------
    configs : sequence of DictConfig
        Such as `grouping.group` puts together.
    settings : sequence of TrainConfig, optional
        The same, where they have been checked already.
    """
    checked = settings or [typed(cfg) for cfg in configs]
    rows: dict[str, GenreDataModule] = {}
    divided = _parts(checked, rows)
    if len(divided) > 1:
        log.info("%d trials are trained %d at a time, as memory allows", len(configs), len(divided[0]))
    for places in divided:
        _train_part([configs[place] for place in places], [checked[place] for place in places], rows)
        for key in list(rows)[1:]:  # the first one keeps the table
            del rows[key]


def _parts(settings: Sequence[TrainConfig], rows: dict[str, GenreDataModule]) -> list[list[int]]:
    """Divide the trials as memory allows; rows that cannot be read are left for the trials to tell of."""
    data = settings[0].data
    known = rows[repr(data)] = GenreDataModule(data)
    try:
        known.setup()
    except Exception:
        return [list(range(len(settings)))]
    n_rows, n_features = known.table.features.shape
    n_genres = len(known.table.genre_names)
    return parts(
        settings, lambda told: cost(told, n_rows, n_features, n_genres, CHUNK_STEPS), limit_of(settings[0])
    )


def _train_part(
    configs: Sequence[DictConfig], settings: Sequence[TrainConfig], rows: dict[str, GenreDataModule]
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
        runs = [
            run for cfg, told in zip(configs, settings, strict=True) if (run := _begun(cfg, told)) is not None
        ]
        members = [member for run in runs if (member := _prepared(run, rows)) is not None]
        if not members:
            return
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


def _begun(cfg: DictConfig, settings: TrainConfig) -> Run | None:
    run = Run(cfg, settings)
    try:
        run.record.begin()
    except Exception as error:
        run.record.fail(error)
        return None
    return run


def _prepared(run: Run, rows: dict[str, GenreDataModule]) -> Member | None:
    """Return a run's member; rows that several runs read and split the same way are read once."""
    try:
        data = run.settings.data
        key = repr(data)
        if key not in rows:
            table = next((known.table for known in rows.values() if _same_table(known.config, data)), None)
            rows[key] = GenreDataModule(data, table=table)
        run.prepare(rows[key])
        return Member(run)
    except Exception as error:
        run.record.fail(error)
        return None


def _same_table(first: DataConfig, second: DataConfig) -> bool:
    return replace(first, split=SplitConfig()) == replace(second, split=SplitConfig())


@dataclass(frozen=True, eq=False)
class _Round:
    """One epoch's rows of every member.

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
    """Trains members side by side, in manual optimization; a training step is a chunk of mini-batches of all of them.

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
        self.family = "sgd" if "momentum" in vars(members[0].run.settings.optimizer) else "adam"
        self._written = time.monotonic()

    @property
    def chunks(self) -> _Chunks:
        """What Lightning takes as a dataloader: the first step of each chunk."""
        return _Chunks(self)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return none: the members have their own."""
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
        self.stack = Stack([member.run.module.network for member in self.members], self.device)  # type: ignore[misc]
        self.optimizer_state = {name: torch.zeros_like(self.stack.parameters) for name in STATE[self.family]}
        for name, buffer in self.optimizer_state.items():
            for number, member in enumerate(self.members):
                if (state := member.flat_state(name)) is not None:
                    buffer[number] = state
        for number, member in enumerate(self.members):
            member.step_count = member.step_count.to(self.device)
            if member.ema is not None and member.average is None:
                member.average = self.stack.parameters[number].clone()
        self._gather_rows()
        self._arrange()

    def _gather_rows(self) -> None:
        """Hold the rows of each split once, however many members train on it."""
        self.splits: dict[str, _Rows] = {}
        offset = 0
        for member in self.members:
            module = member.run.datamodule
            sides = (module.data_split.train.tobytes(), module.data_split.val.tobytes())
            key = f"{module.table.fingerprint}/{hash(sides)}"
            if key not in self.splits:
                features, genres = module.side("train")
                self.splits[key] = _Rows(offset, features, genres, *module.side("val"))
                offset += len(genres)
            member.rows_key = key
        kinds = list(self.splits.values())
        self.train_features = torch.cat([rows.features for rows in kinds]).to(self.device)
        self.train_genres = torch.cat([rows.genres for rows in kinds]).to(self.device)
        for rows in kinds:
            rows.val_features = rows.val_features.to(self.device)
            rows.val_genres = rows.val_genres.to(self.device)

    def _arrange(self) -> None:
        """Lay out what each member brings along its axis; again whenever a member has left."""
        members = self.members
        for number, member in enumerate(members):
            member.bind_state({name: buffer[number] for name, buffer in self.optimizer_state.items()})
        self.parameter_rows = list(self.stack.parameters.unbind(0))
        self.gradient_rows = list(self.stack.gradients.unbind(0))
        self.state_rows = {name: list(buffer.unbind(0)) for name, buffer in self.optimizer_state.items()}
        losses = [member.run.module.hparams for member in members]
        n_genres = len(losses[0]["genre_names"])
        self.tables = torch.stack(
            [
                target_table(
                    n_genres, label_smoothing=told["label_smoothing"], class_weights=told["class_weights"]
                )
                for told in losses
            ]
        ).to(self.device)  # (member, genre of the row, genre)
        self.weights = torch.tensor(
            [told["class_weights"] or [1.0] * n_genres for told in losses], device=self.device
        )  # (member, genre)
        self.mixup = [float(told["mixup"]) for told in losses]
        self.by_norm, self.by_value = self._clipping("norm"), self._clipping("value")
        self.by_step = any(member.interval == "step" and member.scheduler is not None for member in members)
        self.averaged = [number for number, member in enumerate(members) if member.average is not None]
        if self.averaged:
            self.averages = torch.stack([self._average(members[number]) for number in self.averaged])
            decays = [member.ema for member in members if member.ema is not None]
            self.decays = torch.tensor(decays, device=self.device)[:, None]
            for row, number in enumerate(self.averaged):
                members[number].average = self.averages[row]

    def _average(self, member: Member) -> Tensor:
        assert member.average is not None
        return member.average.to(self.device)

    def _clipping(self, algorithm: str) -> Tensor | None:
        limits = [
            value
            if (value := member.run.settings.trainer.gradient_clip_val) is not None
            and member.run.settings.trainer.gradient_clip_algorithm.value == algorithm
            else float("inf")
            for member in self.members
        ]
        if all(limit == float("inf") for limit in limits):
            return None
        return torch.tensor(limits, device=self.device)[:, None]

    def on_train_epoch_start(self) -> None:
        """Draw each member's row order from its own seed and epoch."""
        self._started = time.perf_counter()
        seeds = [mixed_seed(member.run.settings.seed + (1 << 32), member.epoch) for member in self.members]
        # One stream of dropout and mixup for all, which changes with any member's seed or epoch.
        torch.manual_seed(sum(seeds) % (1 << 63))
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
        self._outputs: list[tuple[Tensor, Tensor, Tensor]] = []

    def training_step(self, first: int, batch_idx: int) -> None:
        """Train every member on the mini-batches of one chunk, beginning at step `first`."""
        size = self.batch_size
        last = min(first + CHUNK_STEPS, max(self.round.n_steps))
        columns = slice(first * size, last * size)
        index, valid = self.round.index[:, columns], self.round.valid[:, columns]
        genres = self.train_genres[index]
        targets = self._targets(genres, valid)
        kept = []
        for number, step in enumerate(range(first, last)):
            rows = slice(number * size, (number + 1) * size)
            features = self.train_features.index_select(0, index[:, rows].flatten())
            features = features.view(len(self.members), size, -1)
            batch = Targets(targets.log_target[:, rows], targets.mass[:, rows])
            mixed = self._mixed(features, batch, genres[:, rows], valid[:, rows])
            features, batch, taught = mixed
            logits, inputs = self.stack.forward(features)
            self.stack.backward(loss_gradient(logits, batch), inputs)
            self._update([n for n, steps in enumerate(self.round.n_steps) if step < steps])
            kept.append((logits, taught, row_losses(logits, batch)))
        logits, taught, losses = (torch.cat(parts, dim=1) for parts in zip(*kept, strict=True))
        self._outputs.append((logits, taught, losses))

    def _targets(self, genres: Tensor, valid: Tensor) -> Targets:
        """Return what each row is taught, divided by its mini-batch's rows or weights; nothing for filled-up rows."""
        members = torch.arange(len(genres), device=genres.device)[:, None]
        weights = self.weights[members, genres] * valid
        batches = weights.view(len(genres), -1, self.batch_size)
        divisor = batches.sum(dim=2, keepdim=True).clamp_min(1e-30).expand_as(batches).reshape(genres.shape)
        share = (valid / divisor)[..., None]
        sums = self.tables.sum(dim=2)
        return Targets(-self.tables[members, genres] * share, -sums[members, genres][..., None] * share)

    def _mixed(
        self, features: Tensor, targets: Targets, genres: Tensor, valid: Tensor
    ) -> tuple[Tensor, Targets, Tensor]:
        """Mix the rows of the members that ask for it (see objective.mixup)."""
        if not any(self.mixup):
            return features, targets, genres
        alphas = torch.tensor([alpha or 1.0 for alpha in self.mixup], dtype=torch.float64)
        draws = torch._standard_gamma(alphas[:, None].expand(-1, 2).contiguous())
        share = (draws[:, 0] / draws.sum(dim=1)).clamp(0.0, 1.0)
        share[[number for number, alpha in enumerate(self.mixup) if alpha == 0]] = 1.0
        keys = torch.rand(genres.shape, device=self.device).masked_fill_(~valid, 2.0)
        other = keys.argsort(dim=1)  # filled-up rows stay among themselves
        places = other[..., None]
        weight = share.to(self.device, features.dtype)[:, None, None]

        def mix(part: Tensor) -> Tensor:
            return torch.lerp(part.gather(1, places.expand(-1, -1, part.shape[2])), part, weight)

        mostly = weight[:, :, 0] >= 0.5
        taught = torch.where(mostly, genres, genres.gather(1, other))
        return mix(features), Targets(mix(targets.log_target), mix(targets.mass)), taught

    def _update(self, active: list[int]) -> None:
        self.stack.clip(self.by_norm, self.by_value)
        for settings, numbers in self._alike(active):
            self._optimize(settings, numbers)
        for number in active:
            self.members[number].end_of_step()
        if self.averaged:
            self._average_weights(set(active))

    def _alike(self, active: list[int]) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Return the members that share all optimizer settings at this step."""
        alike: dict[str, list[int]] = {}
        for number in active:
            told = self.members[number].hyperparameters
            kind = type(self.members[number].optimizer).__name__
            key = repr([kind, *(told.get(name) for name in SETTINGS[self.family])])
            alike.setdefault(key, []).append(number)
        for numbers in alike.values():
            yield self.members[numbers[0]].hyperparameters, numbers

    def _optimize(self, settings: dict[str, Any], numbers: list[int]) -> None:
        def rows(of: list[Tensor]) -> list[Tensor]:
            return [of[number] for number in numbers]

        state = {name: rows(buffers) for name, buffers in self.state_rows.items()}
        state["step"] = [self.members[number].step_count for number in numbers]
        _, update = FUSED[type(self.members[numbers[0]].optimizer)]
        update(settings, rows(self.parameter_rows), rows(self.gradient_rows), state)

    def _average_weights(self, active: set[int]) -> None:
        """Move the averaged weights; the first step of a run sets them."""
        current = self.stack.parameters[self.averaged]
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
        """Validate, let each member take note of its epoch, and let go of those that are done."""
        for member in self.members:
            member.end_of_batches()
        values = self._training_metrics()
        by_genre = self._validation_metrics(values)
        seconds = (time.perf_counter() - self._started) / len(self.members)
        ended: list[int] = []
        for number, member in enumerate(self.members):
            try:
                member.end_of_epoch(values[number], by_genre[number], seconds)
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
            self._let_go(set(ended))

    def _training_metrics(self) -> list[dict[str, float]]:
        logits, taught, losses = (torch.cat(parts, dim=1) for parts in zip(*self._outputs, strict=True))
        self._outputs.clear()
        valid = self.round.valid
        scores = member_scores(logits, taught, valid)
        n_rows = valid.sum(dim=1)
        # A row's part of its mini-batch's mean loss; each mini-batch counts by its rows.
        per_batch = valid.view(len(valid), -1, self.batch_size).sum(dim=2, keepdim=True)
        by_batch = losses.double().view(len(valid), -1, self.batch_size).sum(dim=2, keepdim=True)
        loss = (by_batch * per_batch).sum(dim=(1, 2)) / n_rows
        found = {"loss": loss, **scores.values}
        plain = {name: value.tolist() for name, value in found.items()}
        return [
            {f"train/{name}": plain[name][number] for name in plain} for number in range(len(self.members))
        ]

    def _validation_metrics(self, values: list[dict[str, float]]) -> list[dict[str, float]]:
        """Add each member's validation metrics to its values, and return its F1 by genre."""
        by_genre: list[dict[str, float]] = [{} for _ in self.members]
        for key, rows in self.splits.items():
            numbers = [number for number, member in enumerate(self.members) if member.rows_key == key]
            if not numbers or not len(rows.val_genres):
                continue
            logits = self._validated(rows.val_features, numbers)
            genres = rows.val_genres.expand(len(numbers), -1)
            scores = member_scores(logits, genres, torch.ones_like(genres, dtype=torch.bool))
            loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), genres, reduction="none").mean(
                dim=1
            )
            plain = {name: value.tolist() for name, value in {"loss": loss, **scores.values}.items()}
            per_genre = scores.f1_per_genre.tolist()
            for place, number in enumerate(numbers):
                values[number] |= {f"val/{name}": plain[name][place] for name in plain}
                names = self.members[number].run.module.genre_names
                by_genre[number] = {
                    f"val/f1_by_genre/{name}": f1 for name, f1 in zip(names, per_genre[place], strict=True)
                }
        return by_genre

    def _validated(self, features: Tensor, numbers: list[int]) -> Tensor:
        if not self.averaged:
            return self.stack.logits(features, slice(None) if len(numbers) == len(self.members) else numbers)
        # With averaged weights in place of the current ones, as a run of its own validates.
        current = self.stack.parameters.clone()
        self.stack.parameters[self.averaged] = self.averages
        logits = self.stack.logits(features, numbers)
        self.stack.parameters.copy_(current)
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

    def _let_go(self, ended: set[int]) -> None:
        kept = [number for number in range(len(self.members)) if number not in ended]
        self.members = [self.members[number] for number in kept]
        if not kept:
            self.trainer.should_stop = True
            return
        self.stack.keep(kept)
        self.optimizer_state = {name: buffer[kept].clone() for name, buffer in self.optimizer_state.items()}
        self._arrange()

    def fail(self, error: BaseException) -> None:
        """Say in every remaining member's run.json what ended it."""
        for member in self.members:
            member.run.record.fail(error)


@dataclass(eq=False)
class _Rows:
    """The rows of one split.

    Parameters
    ----------
    offset : int
        Place of its training rows among those of all splits.
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

    def _n_steps(self) -> int:
        return max((member.steps_an_epoch for member in self.module.members), default=1)

    def __len__(self) -> int:
        return -(-self._n_steps() // CHUNK_STEPS)

    def __iter__(self) -> Iterator[int]:
        return iter(range(0, self._n_steps(), CHUNK_STEPS))
