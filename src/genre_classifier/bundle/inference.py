"""ModelWrapper gives predictions in the documented form from any torch model that returns logits."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genre_classifier.bundle.chain import (
    SLICE,
    Layer,
    compute_logits,
    compute_softmax,
    compute_softmax_of_row,
)
from genre_classifier.bundle.predictor import DEFAULT_GENRES, Predictor
from genre_classifier.features.sets import describe_mismatch
from genre_classifier.network import GenreClassifier
from genre_classifier.training.engine.layers import RefusedError, record_layers


class ModelWrapper(Predictor):
    """A trained model with its scaler and genre names. It predicts from raw features.

    The wrapper holds no copy of the model or of the scaler's statistics: it reads the weights where torch
    keeps them, so a model that is trained, loaded or moved after wrapping is used as it is then
    now. Each prediction runs without dropout and leaves the model's training mode as it found it.

    Standardising uses float64. Only standardised values are rounded to the model's precision, so even a mean of a
    million standard deviations loses nothing.

    Parameters
    ----------
    model : nn.Module
        Takes (row, feature) and returns logits (row, genre). It is moved to `device`.
    scaler : StandardScaler, another fitted transformer, or None
        Applied to the features first. None if the model takes raw features.
    genre_names : Sequence[str] or None
        Genre of each output. None means Rock, Electronic, Hip-Hop, Classical, Jazz, Folk, Pop and Experimental.
    device : str or torch.device
        Where the model runs.
    feature_names : Sequence[str] or None, keyword only
        Names in the order of training, for named features. The default is the scaler's names, if it was fitted with
        names.

    Raises
    ------
    ValueError
        The names do not fit the model's outputs, the scaler is not fitted, or the widths of model and scaler differ.

    Examples
    --------
    >>> wrapper = ModelWrapper(GenreClassifier(input_dim=3, num_classes=2), genre_names=["Rock", "Jazz"])
    >>> sorted(wrapper.predict([0.1, 2.0, -3.0]))
    ['confidence', 'predicted_genre', 'predicted_index', 'top_predictions']
    """

    backend = "torch"

    def __init__(
        self,
        model: nn.Module,
        scaler: Any = None,
        genre_names: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
        *,
        feature_names: Sequence[str] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.scaler = scaler
        self._scales_itself = _is_standard_scaler(scaler)
        names = _choose_feature_names(feature_names, scaler)
        genres = DEFAULT_GENRES if genre_names is None else genre_names
        super().__init__(genres, _find_width(model, scaler, names), names)
        self._layers = _read_layers(model)
        self._names_are_defaults = genre_names is None
        if self.n_features is not None:  # a model, scaler and names that do not fit are refused now
            with np.errstate(all="ignore"):
                self._compute_softmax(self._compute_logits_checked(np.zeros((1, self.n_features))))

    def _standardise(self, rows: np.ndarray) -> np.ndarray:
        scaler = self.scaler
        if scaler is None:
            return rows
        if not self._scales_itself:
            return np.asarray(scaler.transform(rows), dtype=np.float64)
        # The two steps of StandardScaler.transform, without the 70 microseconds of its checks.
        if scaler.with_mean:
            rows = rows - scaler.mean_
        if scaler.with_std:
            rows = rows / scaler.scale_
        return rows

    def _get_layers(self) -> _Layers | None:
        layers = self._layers
        if layers is None or not layers.are_current():
            layers = self._layers = _read_layers(self.model)
        return layers

    def _compute_row_probabilities(self, row: np.ndarray) -> list[float]:
        layers = self._get_layers()
        if layers is None or not (self._scales_itself or self.scaler is None):
            return self._compute_probabilities(row[np.newaxis])[0].tolist()
        with np.errstate(all="ignore"):  # an overflow becomes NaN, which the caller refuses
            logits = layers.compute_logits(self._standardise(row))
        return compute_softmax_of_row(logits.tolist())

    def _compute_probabilities(self, rows: np.ndarray) -> np.ndarray:
        layers = self._get_layers()
        with np.errstate(all="ignore"):  # an overflow becomes NaN, which the caller refuses
            if layers is None:
                # If only the model knows its number of features, its error is about this number.
                logits = self._compute_logits_checked if self.n_features is None else self._run_network
                return self._compute_softmax(logits(self._standardise(rows)))
            probabilities = np.empty((len(rows), len(self.genre_names)))
            # Slices keep the activations in the processor's cache.
            for start in range(0, len(rows), SLICE):
                block = slice(start, start + SLICE)
                probabilities[block] = self._compute_softmax(
                    layers.compute_logits(self._standardise(rows[block]))
                )
        return probabilities

    def _compute_softmax(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 (row, genre)."""
        if logits.shape[1] != len(self.genre_names):
            source = "the default genre names" if self._names_are_defaults else "genre_names"
            raise ValueError(
                f"{source} are {len(self.genre_names)}, the model has {logits.shape[1]} outputs; "
                "give one name for each output as genre_names"
            )
        return compute_softmax(logits)

    def _compute_logits_checked(self, standardised: np.ndarray) -> np.ndarray:
        """Return logits (row, genre). Raises ValueError if the model does not take rows of this width."""
        try:
            return self._run_network(standardised)
        except RuntimeError as error:
            message = f"the model does not take rows of {standardised.shape[1]} features: {error}"
            raise ValueError(message) from error

    def _run_network(self, standardised: np.ndarray) -> np.ndarray:
        """Return logits (row, genre) of one forward pass of the torch model."""
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        features = torch.from_numpy(standardised).to(device=self.device, dtype=dtype)
        with _evaluating(self.model), torch.inference_mode():
            logits = self.model(features)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(standardised):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"the model returned {found}; expected logits of shape ({len(standardised)}, "
                f"{len(self.genre_names)})"
            )
        return logits.to(device="cpu", dtype=torch.float64).numpy()


class _Layers:
    """The weights of a chain of linear layers, as numpy views of torch's memory.

    The arithmetic for one row of a small network takes a few microseconds. With torch, most of the time goes to the
    calls. The views see every change in place (an optimiser's step, load_state_dict). :meth:`are_current` detects every
    other change.
    """

    def __init__(self, model: nn.Module, containers: list[nn.Module], steps: list[nn.Module]) -> None:
        self._containers = [
            (container._modules, list(container._modules.values())) for container in containers
        ]
        self._instances = [vars(module) for module in model.modules()]
        self._hooks = [
            h for module in model.modules() for h in (module._forward_hooks, module._forward_pre_hooks)
        ]
        self._parameters = [
            (step._parameters, name, parameter, parameter.data_ptr())
            for step in steps
            for name, parameter in step._parameters.items()
            if parameter is not None
        ]
        self._views = [
            Layer(*_take_views(step), isinstance(following, nn.ReLU))
            for step, following in pairwise([*steps, None])
            if isinstance(step, nn.Linear)
        ]

    def are_current(self) -> bool:
        """Return whether the model is still the chain of these views."""
        if any(self._hooks):
            return False
        for children, known in self._containers:
            if list(children.values()) != known:
                return False
        for attributes in self._instances:
            if "forward" in attributes:
                return False
        for owner, name, parameter, address in self._parameters:
            if owner.get(name) is not parameter or parameter.data_ptr() != address:
                return False
        return True

    def compute_logits(self, standardised: np.ndarray) -> np.ndarray:
        """Return logits (genre,) of one standardised row (feature,), or (row, genre) of (row, feature)."""
        return compute_logits(self._views, standardised)


def _take_views(linear: nn.Linear) -> tuple[np.ndarray, np.ndarray | None]:
    bias = None if linear.bias is None else linear.bias.detach().numpy()
    return linear.weight.detach().numpy(), bias


def _read_layers(model: nn.Module) -> _Layers | None:
    """Return the layers of a chain of float layers on the CPU, or None for any other model."""
    containers: list[nn.Module] = []
    steps = list_linear_steps(model, containers)
    if steps is None:
        return None
    if any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in model.modules()):
        return None
    parameters = [parameter for step in steps for parameter in step.parameters()]
    kinds = {(parameter.device.type, parameter.dtype) for parameter in parameters}
    if kinds != {("cpu", torch.float32)} and kinds != {("cpu", torch.float64)}:
        return None
    return _Layers(model, containers, steps)


def list_linear_steps(model: nn.Module, containers: list[nn.Module] | None = None) -> list[nn.Module] | None:
    """Return the Linear and ReLU modules of a model in order, or None if it has any other layer.

    Modules without effect in prediction (Dropout, Identity) are left out. Types must match exactly, because a subclass
    may compute something else. The forward pass is recorded, so a class whose ``forward`` does more gives None too. The
    walked containers are appended to `containers`.
    """
    steps = _flatten(model, [] if containers is None else containers)
    if not steps or type(steps[0]) is not nn.Linear:
        return None
    modules = dict(model.named_modules(remove_duplicate=False))
    try:
        passed = [modules[name] for name in record_layers(model, training=False)]
    except RefusedError:
        return None
    passed = [module for module in passed if type(module) not in (nn.Dropout, nn.Identity)]
    return steps if len(passed) == len(steps) and all(map(operator.is_, passed, steps)) else None


def fold_temperature(model: nn.Module, temperature: float) -> nn.Module:
    """Return a copy of a model whose logits are divided by `temperature`.

    Parameters
    ----------
    model : nn.Module
        A chain of linear layers and ReLU that ends with a linear layer, such as GenreClassifier.
    temperature : float
        Above 1 lowers the confidence, below 1 raises it.

    Returns
    -------
    nn.Module
        The copy. The last layer's weights are divided in float64 and rounded once.

    Raises
    ------
    ValueError
        The temperature is not a positive number, or the model does not end with a linear layer.
    """
    if isinstance(temperature, bool) or not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature!r}: expected a positive number")
    folded = copy.deepcopy(model)
    steps = list_linear_steps(folded)
    if steps is None or not isinstance(steps[-1], nn.Linear):
        raise ValueError(
            f"{type(model).__name__} does not end with a linear layer to fold a temperature into"
        )
    with torch.no_grad():
        for parameter in steps[-1].parameters():
            parameter.copy_(parameter.double() / temperature)
    return folded


def _flatten(module: nn.Module | None, containers: list[nn.Module]) -> list[nn.Module] | None:
    kind = type(module)
    if module is None or kind in (nn.Dropout, nn.Identity):
        return []
    if kind in (nn.Linear, nn.ReLU):
        return [module]
    if kind not in (GenreClassifier, nn.Sequential):
        return None
    containers.append(module)
    flat: list[nn.Module] = []
    for child in module._modules.values():  # children() would drop a module that stands twice
        steps = _flatten(child, containers)
        if steps is None:
            return None
        flat += steps
    return flat


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode within the block, and restore the mode of every module after it."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _is_standard_scaler(scaler: Any) -> bool:
    """Return whether a scaler is scikit-learn's StandardScaler, without importing scikit-learn."""
    if scaler is None:
        return False
    kind = type(scaler)
    if not hasattr(scaler, "transform"):
        raise ValueError(f"scaler is a {kind.__name__}; expected a fitted StandardScaler, or None")
    if kind.__name__ != "StandardScaler" or not kind.__module__.startswith("sklearn."):
        return False
    if not hasattr(scaler, "scale_"):
        raise ValueError(
            "scaler is a StandardScaler that was never fitted; fit it on the training rows first"
        )
    return True


def _choose_feature_names(feature_names: Sequence[str] | None, scaler: Any) -> tuple[str, ...] | None:
    fitted = getattr(scaler, "feature_names_in_", None)
    fitted_names = None if fitted is None else tuple(str(name) for name in fitted)
    if feature_names is None:
        return fitted_names
    names = tuple(feature_names)
    if isinstance(feature_names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"feature_names={feature_names!r}: expected a list of strings")
    if len(set(names)) != len(names):
        raise ValueError("feature_names: a name stands more than once")
    if fitted_names is not None and (difference := describe_mismatch(fitted_names, names)):
        raise ValueError(f"feature_names differ from those the scaler was fitted with: {difference}")
    return names


def _find_width(model: nn.Module, scaler: Any, feature_names: tuple[str, ...] | None) -> int | None:
    """Return the number of features per row; None if it is not known."""
    steps = list_linear_steps(model)
    declared = getattr(model, "input_dim", None)
    widths = {
        "the model's first layer": steps[0].in_features
        if steps and isinstance(steps[0], nn.Linear)
        else None,
        "the model's input_dim": declared if isinstance(declared, int) else None,
        "the scaler": getattr(scaler, "n_features_in_", None),
        "feature_names": None if feature_names is None else len(feature_names),
    }
    known = {source: int(width) for source, width in widths.items() if width is not None}
    if len(set(known.values())) > 1:
        found = ", ".join(f"{source} {width}" for source, width in known.items())
        raise ValueError(f"the number of features in a row is not the same everywhere: {found}")
    return next(iter(known.values()), None)
