"""Save, load and describe a model, with the documented function names.

``python -m genre_classifier.model_utils`` saves a model as a bundle in a temporary folder, loads it again, and compares
the answers of both.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch import Tensor, nn

from genre_classifier.bundle import format as bundle
from genre_classifier.bundle.format import DEFAULT_FOLDER, DEFAULT_NAME, BundleDetails
from genre_classifier.bundle.writing import to_plain, write_bundle
from genre_classifier.data.scaler_state import ScalerStatistics
from genre_classifier.errors import BundleError, CheckpointError
from genre_classifier.files.atomic import replacing
from genre_classifier.files.documents import read_bytes
from genre_classifier.files.torch_file import MAX_BYTES, load_torch_file

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

ModelT = TypeVar("ModelT", bound=nn.Module)

CHECKPOINT_FORMAT: Final = 1

_log = logging.getLogger(__name__)


def save_model_for_production(
    model: nn.Module,
    scaler: Any,
    genre_names: Sequence[str],
    metrics: Mapping[str, Any],
    save_dir: str | Path = DEFAULT_FOLDER,
    model_name: str = DEFAULT_NAME,
    *,
    details: BundleDetails | None = None,
    onnx: bool | None = None,
) -> dict[str, str]:
    """Write the production bundle. If that fails, the earlier bundle stays.

    Parameters
    ----------
    model : nn.Module
        The trained network.
    scaler : StandardScaler
        Fitted on the training rows.
    genre_names : Sequence[str]
        Genre of each output.
    metrics : Mapping[str, Any]
        The model's scores: numbers, texts, and mappings of them.
    save_dir : str or Path
        Folder of the bundle. It is made if it does not exist.
    model_name : str
        Name that the files begin with.
    details : BundleDetails or None, keyword only
        Further metadata: feature names, the run, the split protocol.
    onnx : bool or None, keyword only
        Whether to write NAME.onnx too. None writes it if the packages are installed.

    Returns
    -------
    dict of str to str
        Paths under ``model``, ``scaler`` and ``metadata``.

    Raises
    ------
    BundleError
        The arguments do not fit together, or the disk refuses. No file was changed.

    See Also
    --------
    load_production_model
    """
    paths = write_bundle(
        model, scaler, genre_names, metrics, save_dir, model_name, details=details, onnx=onnx
    )
    return {part: str(paths[part]) for part in ("model", "scaler", "metadata")}


def load_production_model(
    model_class: type[ModelT],
    model_dir: str | Path = DEFAULT_FOLDER,
    model_name: str = DEFAULT_NAME,
    device: str | torch.device = "cpu",
) -> tuple[ModelT, StandardScaler, list[str], dict[str, Any]]:
    """Load a production bundle. Nothing in its files is executed.

    Parameters
    ----------
    model_class : type
        Class of the network, such as GenreClassifier.
    model_dir : str or Path
        Folder of the bundle.
    model_name : str
        Name that the files begin with.
    device : str or torch.device
        Where to put the network.

    Returns
    -------
    model : nn.Module
        In evaluation mode.
    scaler : StandardScaler
        Rebuilt from its statistics, for the installed scikit-learn.
    genre_names : list of str
        Genre of each output.
    metadata : dict
        Content of the metadata file.

    Raises
    ------
    BundleError
        A file is missing, damaged, of a future format, or contradicts another.
    """
    found = bundle.read_bundle(model_dir, model_name)
    model = bundle.build_model(found, model_class, device)
    return model, found.scaler.build(), list(found.genre_names), dict(found.metadata)


def get_model_info(model: nn.Module, input_shape: tuple[int, ...] = (1, 20)) -> dict[str, Any]:
    """Describe a model.

    Parameters
    ----------
    model : nn.Module
        Any model.
    input_shape : tuple of int
        Shape (row, feature) of an input it takes.

    Returns
    -------
    dict
        ``total_parameters``, ``trainable_parameters``, ``model_size_mb`` (parameters and buffers, in units of
        2**20 bytes), ``input_shape``, ``output_shape`` and ``architecture``.

    Raises
    ------
    ValueError
        The model does not take an input of this shape.
    """
    tensors = [*model.parameters(), *model.buffers()]
    first = next(model.parameters(), torch.zeros(0))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            output = model(torch.zeros(input_shape, dtype=first.dtype, device=first.device))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"input_shape={tuple(input_shape)}: the model does not take it: {error}") from error
    finally:
        for module, was_training in modes:
            module.training = was_training
    return {
        "total_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "model_size_mb": sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**20,
        "input_shape": tuple(input_shape),
        "output_shape": tuple(output.shape),
        "architecture": str(model),
    }


def describe_model(model: nn.Module) -> str:
    """Return a summary of a model as lines of text."""
    info = get_model_info(model, (1, getattr(model, "input_dim", 20)))
    return "\n".join(
        (
            info["architecture"],
            f"parameters  {info['total_parameters']:,} ({info['trainable_parameters']:,} trainable)",
            f"size        {info['model_size_mb']:.3f} MiB",
            f"input       {info['input_shape']}",
            f"output      {info['output_shape']}",
        )
    )


class ModelCheckpoint:
    """Checkpoints of a model in one folder. Loading one runs no code.

    Parameters
    ----------
    checkpoint_dir : str or Path
        Folder of the checkpoints. The first :meth:`save` makes it.
    """

    def __init__(self, checkpoint_dir: str | Path) -> None:
        self.checkpoint_dir = Path(checkpoint_dir)

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        scaler: Any = None,
        metadata: Mapping[str, Any] | None = None,
        filename: str = "checkpoint.pt",
    ) -> Path:
        """Write a checkpoint in one step. If that fails, an earlier checkpoint of this name stays.

        Parameters
        ----------
        model : nn.Module
            Its weights are saved. Its class is not.
        optimizer : torch.optim.Optimizer or None
            An optimizer of torch.optim. It is saved with its state and groups.
        scaler : StandardScaler or None
            Saved as its statistics.
        metadata : Mapping[str, Any] or None
            Numbers, texts, and lists and mappings of them.
        filename : str
            Name within the folder.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        CheckpointError
            An argument cannot be saved, or the disk refuses.
        """
        path = self._get_path(filename)
        try:
            content = {
                "format_version": CHECKPOINT_FORMAT,
                "model_state_dict": {key: value.detach().cpu() for key, value in model.state_dict().items()},
                "optimizer": None if optimizer is None else _describe_optimizer(optimizer, model),
                "scaler": None if scaler is None else ScalerStatistics.of(scaler).to_metadata(),
                "metadata": None if metadata is None else to_plain(dict(metadata), "metadata"),
            }
            self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                torch.save(content, temporary)
        except BundleError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{path}: cannot be written: {error}") from error
        return path

    def load(
        self,
        model: ModelT,
        filename: str = "checkpoint.pt",
        load_optimizer: bool = False,
        load_scaler: bool = False,
        device: str | torch.device = "cpu",
    ) -> tuple[ModelT, torch.optim.Optimizer | None, StandardScaler | None, dict[str, Any] | None]:
        """Load a checkpoint into a model.

        Parameters
        ----------
        model : nn.Module
            A network of the saved shape. Its weights are replaced.
        filename : str
            Name within the folder.
        load_optimizer, load_scaler : bool
            Whether to rebuild these too.
        device : str or torch.device
            Where to put the model.

        Returns
        -------
        model : nn.Module
            The model given, on `device`.
        optimizer : torch.optim.Optimizer or None
            Over the model's parameters, with the saved state. None without load_optimizer.
        scaler : StandardScaler or None
            None without load_scaler.
        metadata : dict or None
            As saved.

        Raises
        ------
        CheckpointError
            The file is missing, damaged or of another format, does not fit the model, or lacks the optimizer or
            scaler.
        """
        path = self._get_path(filename)
        content = _read_checkpoint(path)
        for name, is_wanted in (("optimizer", load_optimizer), ("scaler", load_scaler)):
            if is_wanted and content[name] is None:
                raise CheckpointError(f"{path}: was saved without {name}; load it with load_{name}=False")
        try:
            model.load_state_dict(content["model_state_dict"])
        except (RuntimeError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: the weights do not fit {type(model).__name__}: {error}"
            ) from error
        model = model.to(device)
        optimizer = _rebuild_optimizer(content["optimizer"], model, path) if load_optimizer else None
        scaler = None
        if load_scaler:
            try:
                scaler = ScalerStatistics.from_metadata(content["scaler"], str(path)).build()
            except BundleError as error:
                raise CheckpointError(str(error)) from error
        return model, optimizer, scaler, content["metadata"]

    def list_checkpoints(self) -> list[str]:
        """Return the checkpoints' names within the folder, sorted."""
        return sorted(path.name for path in self.checkpoint_dir.glob("*.pt") if path.is_file())

    def _get_path(self, filename: str) -> Path:
        if Path(filename).name != filename or filename.startswith("."):
            raise CheckpointError(
                f"filename={filename!r}: expected the name of a file in {self.checkpoint_dir}"
            )
        return self.checkpoint_dir / filename


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        file = read_bytes(path, MAX_BYTES, CheckpointError)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    content = load_torch_file(file, path, CheckpointError)
    keys = {"format_version", "model_state_dict", "optimizer", "scaler", "metadata"}
    if not isinstance(content, dict) or content.keys() != keys:
        raise CheckpointError(f"{path}: not a checkpoint that ModelCheckpoint wrote")
    found = content["format_version"]
    if type(found) is not int or found != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: format {found!r:.80}, this program reads {CHECKPOINT_FORMAT}; upgrade it"
        )
    return content


def _describe_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """Return an optimizer as built-in types and tensors: class, state, and the parameters' names per group."""
    kind = type(optimizer)
    if getattr(torch.optim, kind.__name__, None) is not kind:
        raise CheckpointError(f"optimizer {kind.__name__} is not one of torch.optim; save it yourself")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [[names.get(id(parameter)) for parameter in group["params"]] for group in optimizer.param_groups]
    if any(name is None for group in groups for name in group):
        raise CheckpointError(f"optimizer {kind.__name__} has parameters that are not the model's")
    return {"class": kind.__name__, "groups": groups, "state": optimizer.state_dict()}


def _rebuild_optimizer(saved: Any, model: nn.Module, path: Path) -> torch.optim.Optimizer:
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    try:
        kind: Any = getattr(torch.optim, saved["class"], None)
        is_optimizer = isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
        if not is_optimizer:
            raise CheckpointError(f"{path}: optimizer {saved['class']!r} is not one of torch.optim")
        groups = [{"params": [parameters[name] for name in group]} for group in saved["groups"]]
        options = saved["state"]["param_groups"][0]
        # Some optimizers have no default learning rate. Loading the state sets all options.
        optimizer: torch.optim.Optimizer = kind(groups, lr=options["lr"])
        optimizer.load_state_dict(saved["state"])
        for parameter, values in optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.numel() != 1 and value.shape != parameter.shape:
                    raise ValueError(f"{name} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the optimizer's state cannot be used ({error!r:.300})") from error
    return optimizer


def _try_round_trip() -> str:
    """Save a model in a temporary folder, load it, and return a description with the difference of the answers."""
    import tempfile

    import numpy as np
    from sklearn.preprocessing import StandardScaler

    from genre_classifier.bundle.inference import ModelWrapper
    from genre_classifier.bundle.predictor import DEFAULT_GENRES
    from genre_classifier.network import GenreClassifier

    rows = np.random.default_rng(0).normal(size=(100, 20))
    model, scaler = GenreClassifier(), StandardScaler().fit(rows)
    with tempfile.TemporaryDirectory() as folder:
        paths = save_model_for_production(model, scaler, DEFAULT_GENRES, {}, folder)
        files = [
            f"  {part:9}{Path(path).name} ({Path(path).stat().st_size:,} bytes)"
            for part, path in paths.items()
        ]
        loaded, loaded_scaler, genres, _ = load_production_model(GenreClassifier, folder)
        before = ModelWrapper(model, scaler, DEFAULT_GENRES).predict_batch(rows)
        after = ModelWrapper(loaded, loaded_scaler, genres).predict_batch(rows)
    difference = max(abs(a["confidence"] - b["confidence"]) for a, b in zip(before, after, strict=True))
    return "\n".join(
        (
            describe_model(model),
            "saved",
            *files,
            f"loaded; {len(rows)} rows answered, largest difference of a confidence {difference:g}",
        )
    )


if __name__ == "__main__":
    from genre_classifier.terminal import say

    say(*_try_round_trip().splitlines())
