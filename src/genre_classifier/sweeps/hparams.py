"""Write TensorBoard's HParams tab: the settings that a sweep varies, and the metrics to compare.

TensorBoard shows the first summary that it finds. So only the sweep has one, and its trials have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genre_classifier.config.settings import is_about_the_machine, select_experiment_settings
from genre_classifier.files.atomic import replacing
from genre_classifier.runs.folder import writing
from genre_classifier.runs.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from genre_classifier.runs.ranking.leaderboard import Trial

COUNTED = ("val/f1", "test/accuracy")


def write_summary(sweep: SweepFolder, numeric: Mapping[str, bool], metrics: Iterable[str]) -> None:
    """Write the experiment's summary into the sweep's own TensorBoard folder, in place of an earlier one.

    Parameters
    ----------
    sweep : SweepFolder
    numeric : mapping of str to bool
        Whether all values are numbers, by the setting's name. An axis of numbers gets a scale, any other axis words.
    metrics : iterable of str
        Names of the trials' final metrics, such as ``val/f1``.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.summary.writer.record_writer import RecordWriter

    described = api_pb2.Experiment(metric_infos=[{"name": {"tag": name}} for name in metrics])
    for name, is_numeric in numeric.items():
        kind = api_pb2.DATA_TYPE_FLOAT64 if is_numeric else api_pb2.DATA_TYPE_STRING
        described.hparam_infos.add(name=name, type=kind, differs=True)
    summary = Summary()
    summary.value.add(
        tag=metadata.EXPERIMENT_TAG,
        metadata=metadata.create_summary_metadata(HParamsPluginData(experiment=described)),
        tensor=metadata.NULL_TENSOR,
    )
    path = sweep.tensorboard / "events.out.tfevents.0.sweep"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as stream:
            records = RecordWriter(stream)
            records.write(Event(file_version="brain.Event:2").SerializeToString())
            records.write(Event(summary=summary).SerializeToString())
            records.flush()


def list_shown_metrics(optimized: str) -> tuple[str, ...]:
    """Return the final metrics that the tab shows, the optimized one first."""
    return tuple(name for name in dict.fromkeys((optimized, *COUNTED)) if not name.startswith("train/"))


def summarize_trials(
    sweep: SweepFolder, trials: Sequence[Trial], optimized: str, swept: Iterable[str]
) -> None:
    """Write the summary of a sweep that has ended, if its trials wrote TensorBoard files.

    Parameters
    ----------
    sweep : SweepFolder
    trials : sequence of Trial
    optimized : str
        The metric that the sweep optimizes.
    swept : iterable of str
        The names of the swept settings and groups.
    """
    finished = [trial for trial in trials if trial.status == "finished" and trial.folder.tensorboard.is_dir()]
    if not finished:
        return
    names = [name for name in swept if not is_about_the_machine(name)]  # trials do not list the others
    if not all(name in trial.settings for trial in finished for name in names):
        # A group was swept: take all settings in which its choices differ.
        names = [
            name
            for name in select_experiment_settings(finished[0].settings)
            if _has_differing_values(finished, name)
        ]
    metrics = [
        name for name in list_shown_metrics(optimized) if all(name in trial.metrics for trial in finished)
    ]
    numeric = {
        name: all(isinstance(trial.settings[name], (int, float)) for trial in finished) for name in names
    }
    if numeric:
        write_summary(sweep, numeric, metrics)


def _has_differing_values(trials: Sequence[Trial], name: str) -> bool:
    if not all(name in trial.settings for trial in trials):
        return False  # TensorBoard leaves trials without the setting out of its plots
    values: list[Any] = [trial.settings[name] for trial in trials]
    return any(value != values[0] for value in values)
