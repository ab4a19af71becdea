"""The folder of a sweep."""

from itertools import islice
from pathlib import Path

from genre_classifier.runs.sweep_folder import SweepFolder


def test_a_trial_that_never_began_leaves_its_number_free(tmp_path: Path) -> None:
    for name in ("0", "1", "3"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / "run.json").touch()
    (tmp_path / "3" / "train.log").touch()
    assert list(islice(SweepFolder(tmp_path).free_names(), 3)) == ["1", "2", "4"]
