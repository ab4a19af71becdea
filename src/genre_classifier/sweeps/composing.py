"""Compose the configurations of a sweep's jobs. The first is composed in full, the others by changing its values."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from genre_classifier.config.settings import list_overrides


def compose_as_the_first_trial() -> None:
    """Let Hydra compose a sweep as a whole with the first value of each swept setting.

    Hydra itself leaves the swept settings out. If `data` is swept, there is then no `data.path` to override, and a
    setting without a default has no value. With first values, the sweep as a whole can be checked like a trial.
    """
    original = ConfigLoaderImpl.load_configuration
    if getattr(original, "is_of_the_first_trial", False):
        return

    def load(
        self: ConfigLoaderImpl, config_name: str | None, overrides: list[str], run_mode: RunMode, **more: Any
    ) -> DictConfig:
        if run_mode is not RunMode.MULTIRUN:
            return original(self, config_name, overrides, run_mode, **more)
        first = [
            keep_first_value(override) for override in OverridesParser.create().parse_overrides(overrides)
        ]
        composed = original(self, config_name, first, run_mode, **more)
        by_text = dict(zip(first, overrides, strict=True))
        with read_write(composed):
            composed.hydra.overrides.task = [
                by_text[text] for text in list_overrides(composed.hydra.overrides.task)
            ]
        return composed

    load.is_of_the_first_trial = True  # type: ignore[attr-defined]
    ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign, assignment]


def keep_first_value(override: Override) -> str:
    """Return an override's text with its first value only. Without a list of values the text is unchanged."""
    text = str(override.input_line)
    if override.is_hydra_override() or not override.is_discrete_sweep():
        return text
    values = override.value()
    if isinstance(values, Glob):
        return text
    first = next(iter(override.sweep_string_iterator()), None)
    return text if first is None else f"{override.get_key_element()}={first}"


@dataclass(frozen=True, eq=False)
class _FirstJob:
    """The job from which others are composed.

    Parameters
    ----------
    overrides : list of Override
    groups : frozenset of str
        The names of the config groups.
    pickled : bytes
        The composed configuration. Unpickling takes a fifth of the time of copying.
    master : DictConfig
        It is kept, because its identity is part of the job's key.
    """

    overrides: list[Override]
    groups: frozenset[str]
    pickled: bytes
    master: DictConfig


class SweepConfigLoader:
    """A config loader that composes a job from an earlier one by changing the values that differ.

    Hydra reads every config group to compose a job, which takes a tenth of a second. If two jobs differ only in values
    of single settings, this loader copies the first and sets these values. In all other cases Hydra composes.

    Parameters
    ----------
    inner : ConfigLoader
        Hydra's own loader. It does everything else.
    """

    def __init__(self, inner: ConfigLoader) -> None:
        self.inner = inner
        self._parsed: dict[str, Override] = {}
        self._first: dict[Any, _FirstJob] = {}

    def __getattr__(self, name: str) -> Any:
        if name in {"inner", "__setstate__"}:  # does not exist yet during unpickling
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __getstate__(self) -> dict[str, Any]:
        return {"inner": self.inner, "_parsed": {}, "_first": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return a job's configuration, as Hydra's loader does."""
        texts = [*list_overrides(master_config.hydra.overrides.hydra), *sweep_overrides]
        overrides = self._parse(texts)
        key = (id(master_config), tuple((o.type, o.package, o.key_or_group) for o in overrides))
        known = self._first.get(key)
        changed = None if known is None else _find_changed_values(known, overrides)
        if known is None or changed is None:
            composed = self.inner.load_sweep_config(master_config, sweep_overrides)
            groups = frozenset(map(str, composed.hydra.runtime.choices))
            self._first[key] = _FirstJob(overrides, groups, pickle.dumps(composed), master_config)
            return composed
        composed = pickle.loads(known.pickled)
        ConfigLoaderImpl._apply_overrides_to_config(changed, composed)
        _set_job_overrides(composed, overrides)
        OmegaConf.copy_cache(from_config=master_config, to_config=composed)
        return composed

    def _parse(self, texts: Sequence[str]) -> list[Override]:
        new = [text for text in texts if text not in self._parsed]
        if new:
            parsed = OverridesParser.create().parse_overrides(new)
            self._parsed.update(zip(new, parsed, strict=True))
        return [self._parsed[text] for text in texts]


def _find_changed_values(first: _FirstJob, now: Sequence[Override]) -> list[Override] | None:
    """Return the overrides whose values differ; None if one changes more than the value of a single setting."""
    names = [override.key_or_group for override in now]
    changed = []
    for old, new in zip(first.overrides, now, strict=True):
        if old.input_line == new.input_line:
            continue
        name = new.key_or_group
        changes_one_value = (
            new.type is OverrideType.CHANGE
            and new.package is None
            and name not in first.groups
            and not isinstance(new.value(), dict)
            and sum(
                other == name or other.startswith(f"{name}.") or name.startswith(f"{other}.")
                for other in names
            )
            == 1
        )
        if not changes_one_value:
            return None
        changed.append(new)
    return changed


def _set_job_overrides(composed: DictConfig, overrides: Sequence[Override]) -> None:
    """Write the job's overrides into the node ``hydra``, as Hydra does."""
    hydra = composed.hydra
    own = [override for override in overrides if not override.is_hydra_override()]
    with read_write(hydra):
        hydra.overrides.hydra = [
            override.input_line for override in overrides if override.is_hydra_override()
        ]
        hydra.overrides.task = [override.input_line for override in own]
        form = hydra.job.config.override_dirname
        hydra.job.override_dirname = get_overrides_dirname(
            overrides=own, kv_sep=form.kv_sep, item_sep=form.item_sep, exclude_keys=form.exclude_keys
        )
