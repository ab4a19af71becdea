"""A run's report, ready for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from genre_classifier.commands import find_program, format_command, format_override, format_train_command
from genre_classifier.config.metrics import METRICS
from genre_classifier.reporting.beside import Beside, find_or_train_grouped_run, is_random_despite_groups
from genre_classifier.reporting.contents import RunContents
from genre_classifier.reporting.figures import draw_curves, draw_importance, draw_map
from genre_classifier.reporting.rows.embedding import Method
from genre_classifier.reporting.rows.from_rows import MOST_FEATURES, FromRows, Importance, analyse_rows
from genre_classifier.reporting.rows.importance import PERMUTATIONS
from genre_classifier.reporting.sections import (
    Calibration,
    Confusion,
    Mistake,
    Number,
    list_mistakes,
    read_calibration,
    read_confusion,
    read_ends,
    read_intervals,
)
from genre_classifier.reporting.svg import Figure
from genre_classifier.runs.folder import shorten_path

FEATURES_SHOWN = 30
SIDE_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class About:
    """The origin of the data, the settings, and the command to repeat the run.

    Parameters
    ----------
    facts : tuple of tuple of str
        Name and value: origin of the rows, licence, citation, versions.
    overrides : tuple of str
        The overrides of the command line.
    settings : tuple of tuple of str
        Every setting and its value.
    commands : tuple of tuple of str
        The purpose of a command, and the command.
    """

    facts: tuple[tuple[str, str], ...]
    overrides: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RunView:
    """A run's report. Parts that the run does not have are None or empty.

    Parameters
    ----------
    name, status, reason, model : str
    started, took : str
    protocol : str
        The split in words.
    numbers : tuple of Number
        Of the test rows.
    level : str
        The method of the intervals.
    warnings, notes : tuple of str
        Warnings about the numbers, and less important remarks.
    beside : Beside or None
    metrics : tuple
        For each side: its name, its rows, and one value per metric.
    curves : tuple of Figure
    confusion : Confusion or None
    calibration : Calibration or None
    mistakes : tuple of Mistake
    importance : tuple of Figure
    importance_note : str
    map : Figure or None
    why_not : str
        The reason why importance and map are missing; empty if they are not.
    about : About
    log_tail : str
    """

    name: str
    status: str
    reason: str
    model: str
    started: str
    took: str
    protocol: str
    numbers: tuple[Number, ...]
    level: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    beside: Beside | None
    metrics: tuple[tuple[str, Any, tuple[float | None, ...]], ...]
    curves: tuple[Figure, ...]
    confusion: Confusion | None
    calibration: Calibration | None
    mistakes: tuple[Mistake, ...]
    importance: tuple[Figure, ...]
    importance_note: str
    map: Figure | None
    why_not: str
    about: About
    log_tail: str


def build_run_view(
    contents: RunContents, *, with_rows: bool, method: Method, key: str = "run", alone: bool = True
) -> RunView:
    """Return a run's report.

    Parameters
    ----------
    contents : RunContents
    with_rows : bool
        Whether the rows may be read again.
    method : str
        Method of the map.
    key : str
        Start of the figures' ids.
    alone : bool
        False for a trial in a sweep's report, which shows the grouped result itself.
    """
    finished = contents.status == "finished"
    intervals = read_intervals(contents) if finished else {}
    row_figures = (
        analyse_rows(contents, method)
        if finished and with_rows
        else FromRows(None, None, _explain_left_out(finished))
    )
    beside = None
    if alone and finished and is_random_despite_groups(contents.protocol):
        beside = find_or_train_grouped_run(contents, train_it=with_rows)
    genre_names = contents.metrics.get("genre_names") or contents.data.get("genres") or []
    best_epoch = contents.run.get("best_epoch")
    return RunView(
        name=str(shorten_path(contents.folder.path)),
        status=contents.status,
        reason=str(contents.run.get("reason") or ""),
        model=describe_model(contents),
        started=_format_date(contents.run.get("started")),
        took=_format_duration(contents),
        protocol=str(contents.protocol.get("description", "")),
        numbers=_list_numbers(contents, intervals),
        level=describe_level(intervals),
        warnings=tuple(list_warnings(contents)),
        notes=tuple(_list_notes(contents)),
        beside=beside,
        metrics=tuple(_list_metrics(contents)),
        curves=tuple(draw_curves(contents.history, best_epoch, key)),
        confusion=read_confusion(contents) if finished else None,
        calibration=read_calibration(contents, intervals, key) if finished else None,
        mistakes=list_mistakes(contents.predictions),
        importance=tuple(_draw_importance(row_figures.importance, key)),
        importance_note=_describe_importance(row_figures.importance),
        map=None if row_figures.places is None else draw_map(row_figures.places, genre_names, f"{key}map"),
        why_not=row_figures.why_not,
        about=build_about(contents),
        log_tail="" if finished else contents.log_tail,
    )


def _explain_left_out(finished: bool) -> str:
    return "--no-rows was given" if finished else "the run is not finished"


def describe_model(contents: RunContents) -> str:
    """Return a description of the model."""
    settings = contents.settings
    baseline = contents.run.get("baseline")
    if isinstance(baseline, dict) and baseline.get("name"):
        return f"{baseline['name']}, a baseline"
    name = str(settings.get("model._target_", "a network")).rpartition(".")[2]
    widths = settings.get("model.hidden_dims")
    if widths:
        name += f", hidden layers of {', '.join(map(str, widths))}"
    if settings.get("model.dropout") is not None:
        name += f", dropout {settings['model.dropout']:g}"
    optimizer = str(settings.get("optimizer._target_") or "").rpartition(".")[2]
    if optimizer:
        name += f"; {optimizer}"
        rate = settings.get("optimizer.lr")
        name += f" with learning rate {rate:g}" if isinstance(rate, (int, float)) else ""
    return name


def _format_date(text: Any) -> str:
    try:
        return f"{datetime.fromisoformat(str(text)):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return ""


def _format_duration(contents: RunContents) -> str:
    seconds, epochs = contents.run.get("seconds"), contents.run.get("epochs")
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{seconds:.1f} s" if seconds < 60 else f"{minutes} min {rest} s"
    text = f"{hours} h {minutes} min" if hours else text
    if not epochs:
        return text
    best = contents.run.get("best_epoch")
    best_in_words = "" if best is None else f", the best one {best}, counted from 0"
    return f"{text}, {epochs} epochs{best_in_words}"


def _list_numbers(contents: RunContents, intervals: Mapping[str, Any]) -> tuple[Number, ...]:
    test = contents.metrics.get("test") or {}
    names = (("accuracy", "Test accuracy"), ("f1", "Weighted F1, test"))
    return tuple(
        Number(words, test[name], *read_ends(intervals, name)) for name, words in names if name in test
    )


def describe_level(intervals: Mapping[str, Any]) -> str:
    """Describe how the intervals of a run's metrics were computed."""
    if not intervals:
        return "There is no interval: it needs two groups or rows."
    unit = str(intervals.get("unit", "row"))
    whole = "" if unit == "row" else f" Whole {unit}s are drawn, since rows of one {unit} are similar."
    return (
        f"95 % intervals: {intervals.get('method', 'bootstrap')}, {intervals.get('resamples')} resamples of "
        f"{intervals.get('units')} {unit}s.{whole}"
    )


def list_warnings(contents: RunContents) -> list[str]:
    """Return the reasons why a run's numbers are less reliable than they look."""
    found = []
    if is_random_despite_groups(contents.protocol):
        name = contents.group_name
        found.append(
            f"Random split. The rows of one {name} are on several sides, although the table has {name}s. So the number "
            f"is optimistic: a model that recognises the {name} is right for the wrong reason."
        )
    if contents.synthetic:
        found.append("Synthetic data. These numbers say nothing about music.")
    duplicates = contents.metrics.get("duplicates") or {}
    copied = (duplicates.get("rows") or {}).get("test", 0)
    if copied:
        other = duplicates.get("other_genre", 0)
        examples = [
            f"{one} = {copy}" for one, side, copy, _ in duplicates.get("examples", []) if side == "test"
        ]
        found.append(
            f"Duplicates. {copied} test {'row has' if copied == 1 else 'rows have'} the same features as a training or "
            f"validation row, so {'it is' if copied == 1 else 'they are'} no test"
            + (f" ({', '.join(examples[:3])})." if examples else ".")
            + (f" {other} of the copies across sides have another genre." if other else "")
        )
    return found


def _list_notes(contents: RunContents) -> list[str]:
    found = []
    if contents.data and contents.protocol and contents.protocol.get("groups_disjoint") is None:
        found.append(
            "The data has no groups (artist, album, track). So it is unknown whether the test rows are of artists that "
            "the model has not heard."
        )
    if contents.status == "finished" and "duplicates" not in contents.metrics:
        found.append("An earlier version made this run. It did not look for duplicates across sides.")
    if contents.status == "finished" and "test" not in contents.metrics:
        found.append("The run has no test rows, so none of its numbers shows how good it is on new rows.")
    return found


def _list_metrics(contents: RunContents) -> list[tuple[str, Any, tuple[float | None, ...]]]:
    rows = contents.data.get("rows_by_split") or {}
    return [
        (words, rows.get(side), tuple(contents.metrics[side].get(metric.name) for metric in METRICS))
        for side, words in SIDE_NAMES.items()
        if contents.metrics.get(side) is not None
    ]


def _draw_importance(importance: Importance | None, key: str) -> list[Figure]:
    if importance is None:
        return []
    found = []
    if importance.by_family:
        meaning = (
            "How much test accuracy falls when all features of a family are shuffled together among the rows."
        )
        found.append(
            draw_importance(importance.by_family, f"{key}families", "Importance of feature families", meaning)
        )
    if importance.by_feature:
        shown = importance.by_feature[:FEATURES_SHOWN]
        meaning = (
            "How much test accuracy falls when one feature is shuffled among the rows. It falls little if other "
            "features carry the same information."
        )
        found.append(draw_importance(shown, f"{key}features", "Importance of features", meaning))
    return found


def _describe_importance(importance: Importance | None) -> str:
    if importance is None:
        return ""
    sentences = [f"Each bar is the mean of {PERMUTATIONS} permutations of {importance.rows} test rows; its line is "
             "their standard deviation."]  # fmt: skip
    if not importance.by_feature:
        sentences.append(
            f"With {importance.features} features, more than {MOST_FEATURES}, they are shuffled by family only."
        )
    elif importance.features > FEATURES_SHOWN:
        sentences.append(f"The {FEATURES_SHOWN} most important of {importance.features} features are shown.")
    return " ".join(sentences)


def build_about(contents: RunContents) -> About:
    """Return the origin of a run's rows, its settings, and the command to repeat it."""
    data = contents.data
    made_with = data.get("feature_set")
    facts = [
        ("data", str(data.get("where", ""))),
        ("rows", _describe_rows(data)),
        ("features", f"{data['features']}" + (f", {made_with['name']}" if made_with else "") if data else ""),
        ("origin", str(data.get("origin", ""))),
        ("licence", str(data.get("licence", ""))),
        ("citation", str(data.get("citation", ""))),
        ("fingerprint of the rows", str(data.get("fingerprint", ""))),
        ("seed", str(contents.run.get("seed", ""))),
        ("seed of the split", str(contents.protocol.get("seed", "") or "")),
        (
            "versions",
            ", ".join(f"{name} {number}" for name, number in contents.run.get("versions", {}).items()),
        ),
    ]
    return About(
        facts=tuple((name, value) for name, value in facts if value),
        overrides=contents.overrides,
        settings=tuple((name, _format_value(value)) for name, value in contents.settings.items()),
        commands=tuple(_list_commands(contents)),
    )


def _describe_rows(data: Mapping[str, Any]) -> str:
    if not data:
        return ""
    sides = data.get("rows_by_split") or {}
    divided = ", ".join(f"{count} {SIDE_NAMES.get(side, side)}" for side, count in sides.items())
    groups = f"; {data['groups']} {data.get('group_name') or 'group'}s" if data.get("groups") else ""
    return f"{data.get('rows')} ({divided}){groups}"


def _format_value(value: Any) -> str:
    return "null" if value is None else str(value)


def _list_commands(contents: RunContents) -> Sequence[tuple[str, str]]:
    folder = shorten_path(contents.folder.path)
    found = []
    if contents.folder.overrides_yaml.is_file():
        found.append(("train it again", format_train_command(contents.overrides)))
    if contents.folder.tensorboard.is_dir():
        found.append(("look at it", format_command("tensorboard", "--logdir", folder)))
    if contents.status == "finished" and contents.has_checkpoint:
        found.append(("export it", format_command(*find_program("export"), format_override("run", folder))))
    found.append(("write this page again", format_command("genre-classifier", "report", folder)))
    return found
