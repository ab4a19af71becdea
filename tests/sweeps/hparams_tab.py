"""TensorBoard's HParams tab, read by TensorBoard's own code."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

NUMBER, TEXT = api_pb2.DATA_TYPE_FLOAT64, api_pb2.DATA_TYPE_STRING


class Tab:
    """The columns of the HParams tab over a folder, and its lines by the trial's run."""

    def __init__(self, folder: Path) -> None:
        multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
        multiplexer.Reload()
        provider = MultiplexerDataProvider(multiplexer, str(folder))
        context, asked = Context(TBContext(data_provider=provider)), RequestContext()
        found = context.experiment_from_metadata(
            asked,
            "",
            True,
            context.hparams_metadata(asked, ""),
            context.hparams_from_data_provider(asked, "", 0),
        )
        self.settings = {info.name: info.type for info in found.hparam_infos}
        self.metrics = [info.name.tag for info in found.metric_infos]
        self.images = multiplexer.PluginRunToTagToContent("images")
        request = api_pb2.ListSessionGroupsRequest(
            slice_size=1000, allowed_statuses=[api_pb2.STATUS_SUCCESS], include_metrics=True
        )
        groups = Handler(asked, context, "", request).run().session_groups
        self.lines = {
            group.name: (
                {name: _value(group.hparams[name]) for name in self.settings if name in group.hparams},
                {value.name.tag: value.value for value in group.metric_values},
            )
            for group in groups
        }


def _value(value: object) -> object:
    return getattr(value, value.WhichOneof("kind"))  # type: ignore[attr-defined]
