"""Caches are written somewhere, whoever the user is, and nobody else can put anything there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genre_classifier.machine import cache_folders
from genre_classifier.machine.cache_folders import find_cache_folder, prepare_caches

VARIABLES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR")
NOBODY = 54_321  # no entry among the system's users
# Reads everything, so that the interpreter may lie in root's home, and writes nothing that is not its own.
ONLY_READING = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]


@pytest.fixture(autouse=True)
def untouched_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    cache_folders._find_temporary.cache_clear()
    yield
    cache_folders._find_temporary.cache_clear()


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home below a file, which nobody can make."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))


def own_folder(tmp_path: Path) -> Path:
    return tmp_path / "temporary" / f"genre-classifier-{os.getuid()}"


def test_a_home_that_can_be_written_is_used_and_nothing_is_made_or_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    prepare_caches()
    assert find_cache_folder() == tmp_path / "home" / ".cache" / "genre-classifier"
    assert not (tmp_path / "home").exists()
    assert not os.environ.keys() & set(VARIABLES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert find_cache_folder() == tmp_path / "caches" / "genre-classifier"


@pytest.mark.usefixtures("no_home")
def test_without_a_home_a_private_temporary_folder_is_used_and_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare_caches()
    folder = own_folder(tmp_path)
    assert find_cache_folder() == folder / "genre-classifier"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {os.environ[name] for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR")} == {
        str(folder)
    }
    assert caplog.text.count("the user's cache folder cannot be written: caches are kept in") == 1


def test_a_home_that_is_not_known_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert find_cache_folder() == own_folder(tmp_path) / "genre-classifier"


@pytest.mark.usefixtures("no_home")
def test_a_folder_that_the_user_has_chosen_is_kept_if_it_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "file" / "matplotlib"))
    prepare_caches()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "numba")
    assert os.environ["MPLCONFIGDIR"] == str(own_folder(tmp_path))


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize("kind", ["link", "open to all", "file"])
def test_a_folder_that_somebody_else_may_have_prepared_is_not_used(kind: str, tmp_path: Path) -> None:
    folder = own_folder(tmp_path)
    if kind == "link":
        (tmp_path / "theirs").mkdir()
        folder.symlink_to(tmp_path / "theirs")
    elif kind == "file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    found = find_cache_folder()
    assert found is not None
    assert not found.is_relative_to(folder)
    assert found.parent.stat().st_mode & 0o777 == 0o700


def test_a_cache_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    theirs = tmp_path / "home" / ".cache" / "genre-classifier"
    theirs.mkdir(parents=True)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: (path != theirs or mode == os.F_OK) and access(path, mode)
    )
    assert find_cache_folder() == own_folder(tmp_path) / "genre-classifier"


@pytest.mark.usefixtures("no_home")
def test_without_a_writable_folder_there_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache_folders, "_list_temporary_bases", lambda: [tmp_path / "file"])
    assert find_cache_folder() is None
    prepare_caches()
    assert not os.environ.keys() & set(VARIABLES)


# What librosa does when it is imported, without its minutes of compiling.
COMPILED = """
import os
from genre_classifier.machine.cache_folders import prepare_caches
prepare_caches()
import matplotlib, numba, pooch

@numba.njit(cache=True)
def twice(x):
    return 2 * x

matplotlib.get_cachedir()
print(twice(2))
os.makedirs(pooch.os_cache("pooch"))
"""


def as_nobody(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return subprocess.run(
        ["setpriv", *ids, *ONLY_READING, sys.executable, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **environment,
        },
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="needs root and setpriv to become another user",
)
@pytest.mark.parametrize("home", [{}, {"HOME": "/nonexistent"}], ids=["no HOME", "no home"])
def test_a_user_without_a_home_compiles_and_draws(home: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="needs the extra audio")
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o555)
    temporary = tmp_path / "open"
    temporary.mkdir()
    temporary.chmod(0o1777)
    (tmp_path / "compiled.py").write_text(COMPILED)
    done = as_nobody(str(tmp_path / "compiled.py"), TMPDIR=str(temporary), MPLBACKEND="agg", **home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4\n"
    folder = temporary / f"genre-classifier-{NOBODY}"
    assert done.stderr.strip() == f"the user's cache folder cannot be written: caches are kept in {folder}"
    assert [path.name.partition(".")[0] for path in folder.rglob("*.nbc")] == ["compiled"]
    assert (folder / "pooch").is_dir()
