"""``genre-classifier compare``: do two runs or sweeps differ by more than chance?"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("first", type=Path, metavar="RUN_OR_SWEEP", help="a run's or sweep's folder")
    parser.add_argument("second", type=Path, metavar="RUN_OR_SWEEP", help="another, tested on the same rows")
    parser.add_argument(
        "--metric", default="f1", help="validation metric that picks a sweep's best configuration; default f1"
    )


def run(options: argparse.Namespace) -> None:
    """Compare the two, and print the differences and the verdict."""
    from genre_classifier.runs.listing import format_unreadable
    from genre_classifier.runs.ranking.comparison import compare, describe_contestants, describe_verdict
    from genre_classifier.runs.ranking.leaderboard import complete_metric_name
    from genre_classifier.terminal import say, say_table

    found = compare(options.first, options.second, complete_metric_name(options.metric))
    for name, lines in describe_contestants(found).items():
        say(f"{name:<9}{', '.join(lines)}")
    folds = found.differences[0].p_value is not None
    headings = ["first", "second", "difference", "95 % interval", *(["p"] if folds else [])]
    rows = []
    for row in found.differences:
        cells = [f"{row.first:.3f}", f"{row.second:.3f}", f"{row.difference:+.3f}"]
        cells.append(f"{row.low:+.3f} to {row.high:+.3f}")
        if row.p_value is not None:
            cells.append(f"{row.p_value:.3f}")
        rows.append((row.metric, *cells))
    say_table(
        f"test rows; {found.protocol}",
        [("metric", "name"), *((heading, "number") for heading in headings)],
        rows,
    )
    say(f"method   {found.method}")
    if found.mcnemar is not None:
        test = found.mcnemar
        say(
            f"McNemar  {test.only_first} rows right only in the first, {test.only_second} only in the second, "
            f"exact p = {test.p_value:.3f}"
        )
    say(f"verdict  {describe_verdict(found)}")
    say(*format_unreadable([*found.first.unreadable, *found.second.unreadable]))
