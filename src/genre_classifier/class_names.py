"""Import classes by their dotted paths. Only this module does that.

A name that the user gives in this process (a command line, a configuration, a call) is imported. A name that only a
file gives is data: it is a key for a class of this package, of torch.optim, or one that the user has named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

from genre_classifier.errors import ConfigError

_OPTIMIZERS: Final = "Adadelta Adagrad Adam AdamW Adamax ASGD NAdam RAdam RMSprop Rprop SGD"
_SCHEDULERS: Final = (
    "ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR LinearLR MultiStepLR OneCycleLR "
    "PolynomialLR ReduceLROnPlateau StepLR"
)
# The classes that a file may name without the user's permission. None has side effects when imported or made.
KNOWN: Final = frozenset(
    {
        "genre_classifier.network.GenreClassifier",
        "genre_classifier.training.loggers.SplitTensorBoardLogger",
        "genre_classifier.training.loggers.mlflow_logger",
        "lightning.pytorch.loggers.CSVLogger",
        *(f"torch.optim.{name}" for name in _OPTIMIZERS.split()),
        *(f"torch.optim.lr_scheduler.{name}" for name in _SCHEDULERS.split()),
    }
)
_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")

_registered: dict[str, Any] = {}


def register(kind: type, path: str | None = None) -> None:
    """Allow files to name a class, until this process ends.

    Parameters
    ----------
    kind : type
        A network, an optimizer or a scheduler that you trust.
    path : str, optional
        The class's name in the files; by default its module and name.

    Examples
    --------
    >>> from genre_classifier.network import GenreClassifier
    >>> register(GenreClassifier, "my_package.MyNetwork")
    >>> find_class("my_package.MyNetwork").__name__
    'GenreClassifier'
    """
    _registered[path or f"{kind.__module__}.{kind.__qualname__}"] = kind


def allow(paths: Iterable[str]) -> None:
    """Import the classes that the user named on the command line, and allow files to name them.

    Raises
    ------
    ConfigError
        A path leads to no class.
    """
    for path in paths:
        import_class(path, type_of_class=type)


def import_class(path: Any, base: type | None = None, *, type_of_class: type = object) -> Any:
    """Import and return the object at the user's dotted path. From now on files may name it too.

    Parameters
    ----------
    path : str
    base : type, optional
        Base class that the class must have.
    type_of_class : type
        Type that the object must have: ``type`` for any class.

    Raises
    ------
    ConfigError
        There is no such module or name, or it has another type.
    """
    kind = _import_path(path)
    if not isinstance(kind, type_of_class):
        raise ConfigError(f"{path}: expected a class, found a {type(kind).__name__}")
    _check_base(path, kind, base)
    _registered[path] = kind
    return kind


def find_class(path: Any, base: type | None = None) -> Any:
    """Return the class that a file names, if files may name it.

    Parameters
    ----------
    path : str
        The name in the file. Another type than str is an error.
    base : type, optional
        Base class that the class must have.

    Raises
    ------
    ConfigError
        Files may not name it, or it is not derived from `base`.
    """
    check_name(path)
    kind = _registered[path] if path in _registered else _import_path(path)
    _check_base(path, kind, base)
    return kind


def check_name(path: Any) -> None:
    """Raise ConfigError unless a file may name this class."""
    if isinstance(path, str) and (path in KNOWN or path in _registered):
        return
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ConfigError(f"_target_={path!r:.80}: expected the dotted path of a class")
    raise ConfigError(
        f"_target_={path:.80}: a name in a file alone imports nothing. If you trust this class, name it yourself: "
        f"python export.py 'allow=[{path:.80}]', genre-classifier report --allow {path:.80}, or in Python "
        "genre_classifier.class_names.register(THE_CLASS)"
    )


def _import_path(path: Any) -> Any:
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ConfigError(
            f"_target_={path!r:.80}: expected the dotted path of a class, as my_package.MyNetwork"
        )
    module, _, name = path.rpartition(".")
    if module.endswith(".__main__"):  # importing this module would run the program
        raise ConfigError(
            f"_target_={path:.80}: {module:.80} is a program, not a module to take a class from"
        )
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"_target_={path:.80}: {error}") from error
    except AttributeError:
        raise ConfigError(f"_target_={path:.80}: {module:.80} has no {name:.80}") from None


def _check_base(path: str, kind: Any, base: type | None) -> None:
    if base is not None and not (isinstance(kind, type) and issubclass(kind, base)):
        raise ConfigError(
            f"_target_={path:.80}: expected a class derived from {base.__module__}.{base.__qualname__}"
        )
