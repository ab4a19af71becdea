"""The console command ``genre-classifier``: extract features, verify a bundle, predict with it, serve it, rank runs,
set scikit-learn's models beside them, compare, report, change songs and see whether they keep their genre.

Heavy libraries are imported inside the subcommands, so that ``--help`` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_classifier import __version__
from genre_classifier.cli import baselines as baselines_command
from genre_classifier.cli import compare as compare_command
from genre_classifier.cli import download as download_command
from genre_classifier.cli import extract as extract_command
from genre_classifier.cli import predict as song_command
from genre_classifier.cli import report as report_command
from genre_classifier.cli import robustness as robustness_command
from genre_classifier.commands import advise_to_install
from genre_classifier.errors import BundleError, DataError, GenreClassifierError, MissingExtraError
from genre_classifier.files.csv_files import format_csv
from genre_classifier.machine.cache_folders import prepare_caches
from genre_classifier.terminal import escape_lines, format_name, prepare, say, say_csv, say_error, say_json

if TYPE_CHECKING:
    from genre_classifier.bundle.format import Bundle
    from genre_classifier.bundle.predictor import Predictor

DEFAULT_BUNDLE = "trained_models/genre_classifier_production"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    prepare()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["train"], ["export"]):
        return _run_hydra(given)
    options = _build_parser().parse_args(_join_features(given))
    try:
        prepare_caches()
        options.run(options)
    except (GenreClassifierError, OSError, ValueError) as error:
        if options.debug:
            raise
        say_error(error)
        return 1
    return 0


def _run_hydra(given: Sequence[str]) -> int:
    """Run train.py's or export.py's entry point. Hydra reads the command line itself."""
    from genre_classifier.cli import hydra_entry

    entry = import_module(f"genre_classifier.cli.{given[0]}")
    # Lightning starts the processes of other devices by this program's path.
    sys.argv = [str(entry.__file__), *given[1:]]
    hydra_entry.run(entry.main)
    return 0


def _join_features(arguments: Sequence[str]) -> list[str]:
    """Write ``--features VALUES`` as one argument: argparse reads a leading minus as an option."""
    joined = list(arguments)
    if "--features" in joined[:-1]:
        position = joined.index("--features")
        joined[position : position + 2] = [f"--features={joined[position + 1]}"]
    return joined


class _Parser(argparse.ArgumentParser):
    """An argument parser that escapes its messages: a wrong argument may be a file's name."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(escape_lines(message), file)


class _SubcommandParser(_Parser):
    """Accepts options between positional arguments, as in ``extract music/ --jobs 2 features.parquet``."""

    _within = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        if self._within:
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False


def _build_parser() -> argparse.ArgumentParser:
    common = _SubcommandParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(prog="genre-classifier", description="Music genres from audio features.")
    parser.add_argument("--version", action="version", version=f"genre-classifier {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_SubcommandParser)

    for name, words in (
        ("train", "train one configuration, or with -m a sweep"),
        ("export", "export a trained model"),
    ):
        commands.add_parser(
            name, add_help=False, help=f"{words}; takes KEY=VALUE settings, see {name} --help"
        )

    verify = commands.add_parser(
        "verify", parents=[common], help="check a bundle's files against each other and try it"
    )
    verify.add_argument(
        "bundle", nargs="?", default=DEFAULT_BUNDLE, help=f"FOLDER/NAME, default {DEFAULT_BUNDLE}"
    )
    verify.set_defaults(run=_verify)

    predict = commands.add_parser(
        "predict",
        parents=[common],
        help="predict genres of audio files, of one row of features or of a table",
    )
    song_command.add_arguments(predict)
    predict.add_argument(
        "--features", metavar="V1,V2,...", help="one row of features, in the order of training"
    )
    predict.add_argument(
        "--table",
        metavar="FILE",
        type=Path,
        help="a table as for training: .csv, .tsv, .txt (tabs), .parquet or .pq",
    )
    predict.add_argument("--bundle", default=DEFAULT_BUNDLE, help=f"FOLDER/NAME, default {DEFAULT_BUNDLE}")
    predict.add_argument("--top-k", type=int, metavar="N", help="genres to list, default 3")
    predict.set_defaults(run=_predict)

    extract = commands.add_parser(
        "extract", parents=[common], help="measure the features of a folder or list of audio files"
    )
    extract_command.add_arguments(extract)
    extract.set_defaults(run=extract_command.run)

    download = commands.add_parser(
        "download",
        parents=[common],
        help="fetch a pretrained network's weights, or a published data set's tables",
    )
    download_command.add_arguments(download)
    download.set_defaults(run=download_command.run)

    baselines = commands.add_parser(
        "baselines",
        parents=[common],
        help="run scikit-learn's models and others on the rows of a network's run",
    )
    baselines_command.add_arguments(baselines)
    baselines.set_defaults(run=baselines_command.run)

    board = commands.add_parser(
        "leaderboard", parents=[common], help="rank the trials of sweeps and runs, replicates joined"
    )
    board.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="sweeps or runs, default all below outputs/"
    )
    board.add_argument("--metric", default="f1", help="what to rank by, on validation rows; default f1")
    board.add_argument("--by", metavar="SETTING", help="join all trials that share a setting's value")
    board.add_argument("--csv", type=Path, metavar="FILE", help="write the table to a file as well")
    board.set_defaults(run=_show_leaderboard)

    comparison = commands.add_parser(
        "compare", parents=[common], help="tell whether two runs or sweeps differ by more than chance"
    )
    compare_command.add_arguments(comparison)
    comparison.set_defaults(run=compare_command.run)

    report = commands.add_parser(
        "report", parents=[common], help="write what a run or sweep amounts to as one HTML file"
    )
    report_command.add_arguments(report)
    report.set_defaults(run=report_command.run)

    robustness = commands.add_parser(
        "robustness",
        parents=[common],
        help="tell whether songs keep their genre when they are louder, compressed, filtered, noisy or cut",
    )
    robustness_command.add_arguments(robustness)
    robustness.set_defaults(run=_robustness)

    serve = commands.add_parser("serve", parents=[common], help="answer predictions over HTTP")
    serve.add_argument("--bundle", help="FOLDER/NAME, default MODEL_DIR/MODEL_NAME from the environment")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on, default 127.0.0.1")
    serve.add_argument("--port", type=int, default=8000, help="default 8000")
    serve.set_defaults(run=_serve)
    return parser


def _verify(options: argparse.Namespace) -> None:
    from genre_classifier.bundle.format import read_bundle, verify_bundle

    folder, name = _split(options.bundle)
    bundle = read_bundle(folder, name)
    checks = verify_bundle(bundle)
    for what, value in (*_describe_bundle(bundle), *checks):
        say(f"{what:16}{value}")
    say(f"{bundle.folder / bundle.name}: good")


def _describe_bundle(bundle: Bundle) -> list[tuple[str, str]]:
    metadata = bundle.metadata
    names = bundle.feature_names
    features = (
        f"{bundle.scaler.n_features}"
        if names is None
        else f"{len(names)}, {format_name(names[0])} to {format_name(names[-1])}"
    )
    metrics = ", ".join(_format_metrics(metadata["metrics"])) or "none"
    return [
        ("model", f"{metadata['model_name']}, {_format_value(metadata['model_architecture'])}"),
        ("written", metadata["timestamp"]),
        ("digest", bundle.digest),
        ("genres", ", ".join(map(format_name, bundle.genre_names))),
        ("features", features),
        ("metrics", metrics),
        ("split", metadata.get("split_protocol") or "not recorded"),
    ]


def _format_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """Return the metrics in words. Metrics by split are shown for one split: test, else validation, else training."""
    splits = [split for split in ("test", "val", "train") if isinstance(metrics.get(split), dict)]
    if not splits:
        return [f"{key} {_format_value(value)}" for key, value in metrics.items()]
    shown = [f"{splits[0]} {key} {_format_value(value)}" for key, value in metrics[splits[0]].items()]
    if metrics.get("synthetic_data"):
        shown.append("synthetic data")
    if "held_out_model" in metrics:
        shown.append("of the held-out model")
    return shown


def _format_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else format_name(value, 80)


def _predict(options: argparse.Namespace) -> None:
    from genre_classifier.bundle.format import make_predictor, read_bundle
    from genre_classifier.bundle.predictor import DEFAULT_TOP_K

    given = [bool(options.songs), options.features is not None, options.table is not None]
    if not any(given):
        raise DataError("nothing to predict: name audio files, or give --features or --table")
    if sum(given) > 1:
        raise DataError("give only one of SONG, --features and --table")
    bundle = read_bundle(*_split(options.bundle))
    predictor = make_predictor(bundle)
    top_k = DEFAULT_TOP_K if options.top_k is None else options.top_k
    if options.songs:
        song_command.run(options, bundle, predictor, top_k)
    elif options.features is not None:
        answer = predictor.predict(_parse_features(options.features), return_probs=True, top_k=top_k)
        say_json(answer)
    else:
        _require_same_features(bundle, options.table)
        _predict_table(predictor, options.table, top_k)


def _require_same_features(bundle: Bundle, path: Path) -> None:
    """Raise DataError if a table's features were not measured as the bundle's were."""
    from genre_classifier.bundle.format import find_feature_set
    from genre_classifier.features.output import read_feature_set

    expected = find_feature_set(bundle.metadata, bundle.feature_names)
    found = read_feature_set(path) if path.is_file() else None
    difference = None if expected is None or found is None else expected.describe_difference(found)
    if difference is not None:
        raise DataError(
            f"{path}: its features were measured differently from those of the training ({difference})"
        )


def _parse_features(text: str) -> list[float]:
    values = []
    for position, cell in enumerate(text.split(",")):
        try:
            values.append(float(cell))
        except ValueError:
            raise DataError(
                f"--features: value {position} is {cell.strip()!r}; expected numbers separated by commas"
            ) from None
    return values


def _predict_table(predictor: Predictor, path: Path, top_k: int) -> None:
    from genre_classifier.data.table import describe_not_finite
    from genre_classifier.data.tables.columns import read_columns
    from genre_classifier.data.tables.readers import Asked

    columns = read_columns(
        path,
        {} if "id" in (predictor.feature_names or ()) else {"id": "id"},
        predictor.feature_names,
        asked=Asked("--table", f"the bundle's {predictor.n_features} features"),
        optional={"id"},
    )
    found = len(columns.feature_names)
    if predictor.feature_names is None and found != predictor.n_features:
        # Without names, only the order of the columns can be used. It must not leave a choice.
        raise DataError(
            f"{path}: {found} numeric columns; the bundle takes {predictor.n_features} features and does not name them"
        )
    bad = describe_not_finite(columns.features, columns.feature_names, columns.row_name)
    if bad is not None:
        raise DataError(f"{path}, {bad}; correct them or remove the rows")
    answers = predictor.predict_batch(columns.features, top_k=top_k)
    labels = columns.texts.get("id", range(len(columns.features)))
    n_top = len(answers[0]["top_predictions"]) if answers else 0
    header = ["id", *(part for i in range(1, n_top + 1) for part in (f"genre_{i}", f"confidence_{i}"))]
    rows = []
    for label, answer in zip(labels, answers, strict=True):
        cells = [(top["genre"], f"{top['confidence']:.6f}") for top in answer["top_predictions"]]
        rows.append([label, *(cell for pair in cells for cell in pair)])
    say_csv(format_csv(header, rows))


def _show_leaderboard(options: argparse.Namespace) -> None:
    from genre_classifier.runs.listing import format_unreadable
    from genre_classifier.runs.ranking.leaderboard import complete_metric_name, find_trials, rank_trials
    from genre_classifier.runs.ranking.tables import show_leaderboard, write_leaderboard

    metric = complete_metric_name(options.metric)
    trials = find_trials(options.folders or [Path("outputs")])
    boards = rank_trials(trials, metric, options.by)
    for board in boards:
        show_leaderboard(board)
    say(*format_unreadable(trials.unreadable))
    if options.csv is not None:
        write_leaderboard(options.csv, boards)


def _robustness(options: argparse.Namespace) -> None:
    from genre_classifier.bundle.format import make_predictor, read_bundle

    bundle = read_bundle(*_split(options.bundle))
    robustness_command.run(options, bundle, make_predictor(bundle))


def _serve(options: argparse.Namespace) -> None:
    needed = ("fastapi", "fastapi_offline", "uvicorn", "httptools", "msgspec", "python_multipart")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"serving needs {', '.join(missing)}, not installed; {advise_to_install('serve')}"
        )
    from genre_classifier.service.model import ModelService, model_service
    from genre_classifier.service.server import run

    service = model_service if options.bundle is None else ModelService(*_split(options.bundle))
    run(service, options.host, options.port)


def _split(bundle: str) -> tuple[Path, str]:
    """Return folder and name of FOLDER/NAME."""
    path = Path(bundle)
    if path.is_dir():
        raise BundleError(
            f"{path}: is a folder; name the bundle in it, as in {path / 'genre_classifier_production'}"
        )
    return path.parent, path.name


if __name__ == "__main__":
    sys.exit(main())
