"""Show a sweep in the terminal: a line for each trial when it ends, and one bar with the remaining time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from genre_classifier.config.settings import format_value
from genre_classifier.errors import RunFolderError
from genre_classifier.runs.folder import RunFolder
from genre_classifier.runs.sweep_folder import SweepFolder
from genre_classifier.terminal import say

SECONDS_BETWEEN_LOOKS = 0.5


class Progress:
    """Shows a sweep's progress. It watches the run folders, so all launchers look the same.

    Parameters
    ----------
    sweep : SweepFolder
    expected : int
        Trials of the whole sweep.
    metric : str
        The metric in a trial's line.
    swept : sequence of str
        The settings in a trial's line.
    """

    def __init__(self, sweep: SweepFolder, expected: int, metric: str, swept: Sequence[str]) -> None:
        self.sweep = sweep
        self.expected = expected
        self.metric = metric
        self.swept = tuple(swept)
        self.ended: set[str] = set()
        self._bar: Any = None

    @contextmanager
    def watching(self, folders: Sequence[RunFolder]) -> Iterator[None]:
        """Show the trials that end while the block runs."""
        self._open(folders)
        stop = threading.Event()
        seen: dict[str, int] = {}

        def watch() -> None:
            while not stop.wait(SECONDS_BETWEEN_LOOKS):
                self._look(folders, seen)

        thread = threading.Thread(target=watch, daemon=True, name="sweep-progress")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self._look(folders, seen)
            if len(self.ended) >= self.expected:
                self._bar.close()

    def _open(self, folders: Sequence[RunFolder]) -> None:
        done = [folder for folder in folders if _get_status(_read_run(folder)) == "finished"]
        new = {folder.path.name for folder in done} - self.ended
        self.ended |= new
        if self._bar is None:
            self._bar = tqdm(
                total=self.expected,
                initial=len(new),
                unit="trial",
                desc="sweep",
                leave=False,
                dynamic_ncols=True,
                disable=not sys.stderr.isatty(),
            )
            if new:
                self._say(f"{len(new)} of {self.expected} trials are finished already")
        else:
            self._bar.update(len(new))

    def _look(self, folders: Sequence[RunFolder], seen: dict[str, int]) -> None:
        for folder in folders:
            name = folder.path.name
            if name in self.ended:
                continue
            try:
                changed = folder.run_json.stat().st_mtime_ns
            except OSError:
                continue
            if seen.get(name) == changed:
                continue
            seen[name] = changed
            run = _read_run(folder)
            if _get_status(run) in {"finished", "failed"}:
                self.ended.add(name)
                self._say(self._format_line(folder, run))
                self._bar.update(1)

    def _say(self, line: str) -> None:
        with self._bar.external_write_mode(file=sys.stdout):
            say(line)

    def _format_line(self, folder: RunFolder, run: Mapping[str, Any]) -> str:
        count = f"{len(self.ended)}/{self.expected}"
        settings = format_settings(run.get("settings") or {}, self.swept)
        if run["status"] == "failed":
            return f"{count}  trial {folder.path.name}  failed: {_take_first_line(run.get('reason'))}  {settings}"
        value = f"{self.metric} {_format_number(run.get('objective'), 4)}"
        return f"{count}  trial {folder.path.name}  {value}  {_format_number(run.get('seconds'), 1)} s  {settings}"


def _format_number(value: float | None, digits: int) -> str:
    return "?" if value is None else f"{value:.{digits}f}"


def _read_run(folder: RunFolder) -> Mapping[str, Any]:
    try:
        return folder.read_run()
    except RunFolderError:
        return {}


def _get_status(run: Mapping[str, Any]) -> str | None:
    return run.get("status")


def format_settings(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return settings as a person would type them, numbers to four digits."""
    names = [key if key in settings else key.replace("/", ".") for key in keys]
    return " ".join(f"{name}={format_value(settings[name])}" for name in names if name in settings)


def _take_first_line(reason: Any) -> str:
    return str(reason).splitlines()[0] if reason else "no reason is recorded"
