from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from genre_classifier.bundle import publication
from genre_classifier.bundle.publication import compute_fingerprint, locked, publish, read_files
from genre_classifier.errors import BundleError

KNOWN = ["set.pt", "set_scaler.pkl", "set_metadata.json", "set.onnx"]
NEEDED = KNOWN[:3]


def version(letter: str, with_onnx: bool = True) -> dict[str, bytes]:
    """Return files whose every byte says which version they are of."""
    return {name: letter.encode() * 3000 for name in (KNOWN if with_onnx else NEEDED)}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    with locked(folder):
        return publish(folder, "set", files, KNOWN, lambda _: None)


def read(folder: Path) -> dict[str, bytes]:
    return read_files(folder, "set", dict.fromkeys(KNOWN, 2**20), NEEDED)


def seen_by_a_plain_reader(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in KNOWN if (folder / name).exists()}


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in {".partial", ".new", ".new-link"}]


def test_the_documented_names_lead_to_the_current_version(tmp_path):
    for letter in "abc":
        write(tmp_path, version(letter))
        assert read(tmp_path) == seen_by_a_plain_reader(tmp_path) == version(letter)
    assert (tmp_path / "set.versions" / "current").readlink() == Path("000003")
    assert temporary_files(tmp_path) == []


def test_a_moved_folder_keeps_working(tmp_path):
    write(tmp_path / "here", version("a"))
    (tmp_path / "here").rename(tmp_path / "there")
    assert read(tmp_path / "there") == seen_by_a_plain_reader(tmp_path / "there") == version("a")


def test_a_file_that_the_new_version_lacks_is_gone(tmp_path):
    write(tmp_path, version("a"))
    write(tmp_path, version("b", with_onnx=False))
    assert read(tmp_path) == seen_by_a_plain_reader(tmp_path) == version("b", with_onnx=False)
    assert not (tmp_path / "set.onnx").is_symlink()
    write(tmp_path, version("c"))
    assert seen_by_a_plain_reader(tmp_path) == version("c")


def plain(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content)


def test_plain_files_are_taken_over_and_kept_as_a_version(tmp_path):
    plain(tmp_path, version("p"))
    assert read(tmp_path) == version("p")
    write(tmp_path, version("a", with_onnx=False))
    assert seen_by_a_plain_reader(tmp_path) == version("a", with_onnx=False)
    assert {path.read_bytes()[:1] for path in (tmp_path / "set.versions" / "000001").iterdir()} == {b"p"}
    assert (tmp_path / "set.versions" / "current").readlink() == Path("000002")


def test_plain_files_that_replaced_the_links_are_what_a_reader_sees(tmp_path):
    write(tmp_path, version("a"))
    plain(tmp_path, version("p"))
    assert read(tmp_path) == version("p")
    write(tmp_path, version("b"))
    assert read(tmp_path) == seen_by_a_plain_reader(tmp_path) == version("b")
    assert len(list((tmp_path / "set.versions").glob("0*"))) == 3


def test_links_to_elsewhere_are_followed_and_taken_over(tmp_path):
    plain(tmp_path / "elsewhere", version("p"))
    for name in KNOWN:
        (tmp_path / name).symlink_to(tmp_path / "elsewhere" / name)
    assert read(tmp_path) == version("p")
    write(tmp_path, version("a"))
    assert read(tmp_path) == version("a")
    assert seen_by_a_plain_reader(tmp_path / "elsewhere") == version("p")


def test_a_missing_set_reads_as_empty(tmp_path):
    assert read(tmp_path) == {}
    write(tmp_path, version("a"))
    (tmp_path / "set.versions" / "current").unlink()
    assert read(tmp_path) == {}


def test_a_failing_check_leaves_what_was_there(tmp_path):
    write(tmp_path, version("a"))
    before = sorted(tmp_path.rglob("*"))

    def refuse(written):
        assert written == version("b")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"), locked(tmp_path):
        publish(tmp_path, "set", version("b"), KNOWN, refuse)
    assert sorted(tmp_path.rglob("*")) == before
    assert read(tmp_path) == version("a")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_not_a_file_is_refused_by_name(tmp_path, kind):
    plain(tmp_path, version("p"))
    (tmp_path / "set.pt").unlink()
    (tmp_path / "set.pt").mkdir() if kind == "folder" else os.mkfifo(tmp_path / "set.pt")
    with pytest.raises(BundleError, match=r"set\.pt: expected a file, found something else"):
        read(tmp_path)
    with pytest.raises(BundleError, match=r"set\.pt: expected a file"):
        write(tmp_path, version("a"))
    assert not (tmp_path / "set.versions").exists()


def test_something_else_in_the_place_of_the_versions_is_refused(tmp_path):
    (tmp_path / "set.versions").write_text("mine")
    with pytest.raises(BundleError, match=r"set\.versions: expected the folder of versions"):
        write(tmp_path, version("a"))
    assert (tmp_path / "set.versions").read_text() == "mine"


def test_a_filesystem_without_links_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(BundleError, match="no symbolic links"):
        write(tmp_path, version("a"))
    assert list(tmp_path.iterdir()) == []


def test_old_versions_are_removed_when_no_reader_can_still_want_them(tmp_path, monkeypatch):
    for letter in "abcdef":
        write(tmp_path, version(letter))
    assert len(list((tmp_path / "set.versions").glob("0*"))) == 6
    monkeypatch.setattr(publication, "GRACE_SECONDS", -1.0)
    write(tmp_path, version("g"))
    assert sorted(path.name for path in (tmp_path / "set.versions").glob("0*")) == [
        "000005",
        "000006",
        "000007",
    ]
    assert read(tmp_path) == version("g")


def test_a_version_removed_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "GRACE_SECONDS", -1.0)
    write(tmp_path, version("a"))
    read_bytes = publication.read_bytes
    reads = []

    def replace_meanwhile(path, *arguments, folder):
        if folder is not None:  # a reader, not the writers below
            reads.append(path.name)
            if len(reads) == 2:
                for letter in "bcde":
                    write(tmp_path, version(letter))
        return read_bytes(path, *arguments, folder=folder)

    monkeypatch.setattr(publication, "read_bytes", replace_meanwhile)
    files = read(tmp_path)
    assert files == version("e")
    assert len(reads) > len(KNOWN)


OPERATIONS = ("open", "write", "fsync", "mkdir", "rename", "replace", "symlink", "unlink", "rmdir")


class Disk:
    """Counts the operations that change a disk and makes the chosen one, or all from there on, fail."""

    def __init__(self, monkeypatch, fail_at: int, mode: str) -> None:
        self.count = 0
        self.fail_at = fail_at
        self.mode = mode
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self._failing(name, getattr(os, name)))

    def _failing(self, name, original):
        def operation(*arguments, **keywords):
            if name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR):
                return original(*arguments, **keywords)
            self.count += 1
            if self.count == self.fail_at or (self.count > self.fail_at and self._fails_still(name)):
                if self.mode == "killed":
                    raise KeyboardInterrupt
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments, **keywords)

        return operation

    def _fails_still(self, name: str) -> bool:
        if self.mode == "full":
            return name not in {"unlink", "rmdir"}
        return self.mode == "killed"


def prepare(folder: Path, start: str) -> dict[str, bytes]:
    if start == "links":
        write(folder, version("a"))
    if start == "plain":
        plain(folder, version("a"))
    if start == "mixed":
        write(folder, version("x"))
        plain(folder, version("a"))
    return {} if start == "nothing" else version("a")


@pytest.mark.parametrize("start", ["nothing", "links", "plain", "mixed"])
@pytest.mark.parametrize("mode", ["once", "full", "killed"])
def test_a_failure_at_any_operation_leaves_one_complete_version(memory_path, start, mode):
    failures = 0
    for fail_at in range(1, 200):
        folder = memory_path / str(fail_at)
        folder.mkdir()
        old = prepare(folder, start)
        error: BaseException | None = None
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = Disk(monkeypatch, fail_at, mode)
            try:
                write(folder, version("b"))
            except (BundleError, KeyboardInterrupt) as failed:
                error = failed
        found = read(folder)
        assert found in (old, version("b"))
        assert seen_by_a_plain_reader(folder) == found
        if mode != "killed":
            assert temporary_files(folder) == []
            is_in_place = error is None or "new bundle is in place" in str(error)
            assert found == (version("b") if is_in_place else old)
            assert error is None or "No space left" in str(error)
            if not is_in_place and start == "nothing":
                assert list(folder.iterdir()) == []
        write(folder, version("c"))
        assert seen_by_a_plain_reader(folder) == read(folder) == version("c")
        assert temporary_files(folder) == []
        if disk.count < fail_at:
            assert error is None
            break
        failures += 1
    assert failures > 20


def test_what_a_killed_writer_of_another_set_left_is_removed(memory_path):
    """A set with a version in its name is never written again, so the next one has to do it."""
    for fail_at in range(1, 100):
        folder = memory_path / str(fail_at)
        write(folder, version("a"))
        other = {name.replace("set", "set_v2"): content for name, content in version("b").items()}
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = Disk(monkeypatch, fail_at, "killed")
            with contextlib.suppress(KeyboardInterrupt), locked(folder):
                publish(folder, "set_v2", other, list(other), lambda _: None)
        is_published = (folder / "set_v2.versions" / "current").exists()
        write(folder, version("c"))
        assert read(folder) == version("c")
        assert temporary_files(folder) == []
        assert is_published == (
            read_files(folder, "set_v2", dict.fromkeys(other, 2**20), list(other)) == other
        )
        left = {path.relative_to(folder).parts for path in folder.rglob("*set_v2*.*")}
        if not is_published:  # nothing, or a version that was complete
            assert {parts[0] for parts in left} <= {"set_v2.versions"}
            assert len(left) in (0, 1 + len(other))
        if disk.count < fail_at:
            break
    assert fail_at > 20
    assert is_published


WRITER = """
import os, sys
from pathlib import Path
from genre_classifier.bundle.publication import locked, publish
folder, known = Path(sys.argv[1]), sys.argv[2].split(",")
version = {"0": b"a", "1": b"b"}
count = 0
os.write(1, b".")
while True:
    letter = version[str(count % 2)]
    with locked(folder):
        publish(folder, "set", {name: letter * 3000 for name in known}, known, lambda _: None)
    count += 1
    os.write(1, b"+")
"""


@pytest.mark.parametrize("start", ["links", "plain"])
def test_killed_at_a_hundred_moments_a_reader_finds_one_complete_version(memory_path, start):
    # A launcher forks the writers, so that a hundred of them do not start a hundred interpreters.
    launcher = f"""
import os, sys
import genre_classifier.bundle.publication
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        sys.argv = ["writer", line.strip(), {",".join(KNOWN)!r}]
        exec({WRITER!r})
    os.write(2, str(pid).encode() + b"\\n")
    os.waitpid(pid, 0)
    os.write(2, b"gone\\n")
"""
    generator = np.random.default_rng(5)
    published = 0
    process = subprocess.Popen(
        [sys.executable, "-c", launcher],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        for number in range(100):
            folder = memory_path / f"{number // 10}"
            if not folder.exists():
                folder.mkdir()
                plain(folder, version("p")) if start == "plain" else write(folder, version("p"))
            process.stdin.write(f"{folder}\n".encode())
            process.stdin.flush()
            pid = int(process.stderr.readline())
            assert os.read(process.stdout.fileno(), 1) == b"."
            # Waiting for progress, or for a random moment, whichever is first.
            for _ in range(int(generator.integers(0, 4))):
                select.select([process.stdout], [], [], float(generator.uniform(0.0, 0.01)))
            os.kill(pid, signal.SIGKILL)
            assert process.stderr.readline() == b"gone\n"
            while select.select([process.stdout], [], [], 0.0)[0]:
                published += os.read(process.stdout.fileno(), 4096).count(b"+")
            found = read(folder)
            assert found in (version("p"), version("a"), version("b"))
            assert seen_by_a_plain_reader(folder) == found
    finally:
        process.kill()
        process.communicate()
    assert published > 20
    write(folder, version("z"))
    assert temporary_files(folder) == []


def test_writers_take_turns_and_readers_never_see_a_mixture(tmp_path):
    write(tmp_path, version("a"))
    stop = threading.Event()
    problems: list[object] = []

    def keep_writing(letters: str) -> None:
        try:
            for letter in letters * 6:
                write(tmp_path, version(letter, with_onnx=letter != "c"))
        except Exception as error:
            problems.append(error)

    def keep_reading() -> None:
        while not stop.is_set():
            found = read(tmp_path)
            if len({content[:1] for content in found.values()}) != 1 or len(found) < 3:
                problems.append(found)

    writers = [threading.Thread(target=keep_writing, args=(letters,)) for letters in ("abc", "def")]
    reader = threading.Thread(target=keep_reading)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert problems == []
    assert len(list((tmp_path / "set.versions").glob("0*"))) == 37


def test_a_writer_that_never_finishes_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "LOCK_SECONDS", -1.0)
    with (
        locked(tmp_path),
        pytest.raises(BundleError, match="another export has been writing"),
        locked(tmp_path),
    ):
        pass


def test_the_fingerprint_changes_with_every_version(tmp_path):
    seen = {compute_fingerprint(tmp_path, KNOWN)}
    for letter in "abc":
        write(tmp_path, version(letter))
        seen.add(compute_fingerprint(tmp_path, KNOWN))
        assert compute_fingerprint(tmp_path, KNOWN) in seen
    assert len(seen) == 4


@pytest.fixture
def small_disk(tmp_path):
    """Mount a filesystem of 64 KB."""
    yield from mounted(tmp_path, "size=64k")


def mounted(tmp_path: Path, options: str):
    folder = tmp_path / "mount"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a filesystem needs root and the permission to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_earlier_version(small_disk):
    small = dict.fromkeys(KNOWN, b"a" * 1000)
    write(small_disk, small)
    with pytest.raises(BundleError, match="No space left on device"):
        write(small_disk, dict.fromkeys(KNOWN, b"b" * 40_000))
    assert read(small_disk) == seen_by_a_plain_reader(small_disk) == small
    assert temporary_files(small_disk) == []


def test_a_read_only_folder_can_be_read_and_refuses_a_new_version(tmp_path):
    for folder in mounted(tmp_path, "size=1m"):
        write(folder, version("a"))
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        assert read(folder) == version("a")
        with pytest.raises(BundleError, match="Read-only file system"):
            write(folder, version("b"))
        with pytest.raises(BundleError, match=r"new: cannot be created \(Read-only file system\)"):
            write(folder / "new", version("b"))
        assert read(folder) == version("a")


def test_a_folder_whose_owner_forbids_writing_refuses_a_new_version(tmp_path, monkeypatch):
    # Root may write anywhere, so the refusal is made here.
    write(tmp_path, version("a"))
    mkdir = os.mkdir

    def refuse(path, *arguments, **keywords):
        if str(path).endswith(".partial"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return mkdir(path, *arguments, **keywords)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(
        BundleError, match=r"earlier one was left as it was: Permission denied \(.*000002\.partial"
    ):
        write(tmp_path, version("b"))
    assert read(tmp_path) == version("a")


@pytest.mark.parametrize("name", ["other.versions", "set_v2.versions"])
def test_what_a_link_leads_to_is_left_alone(tmp_path, name):
    """A link that somebody put beside the bundles leads to a folder that looks like ours."""
    outside = tmp_path / "elsewhere"
    for precious in ("000001.partial", "000002", "current.new"):
        (outside / precious).mkdir(parents=True)
        (outside / precious / "work.txt").write_text("of months")
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / name).symlink_to(outside)
    write(folder, version("a"))
    write(folder, version("b"))
    assert read(folder) == version("b")
    assert sorted(path.name for path in outside.rglob("work.txt")) == ["work.txt"] * 3
    assert (folder / name).is_symlink()


def test_the_versions_of_somebody_else_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "GRACE_SECONDS", -1.0)
    for name in ("20240101", "20240201", "20240301", "20240401", "20240501", "report.new", "half.partial"):
        (tmp_path / "table.versions" / name).mkdir(parents=True)
        (tmp_path / "table.versions" / name / "work.txt").write_text("of months")
    before = sorted((tmp_path / "table.versions").rglob("*"))
    for letter in "abcde":
        write(tmp_path, version(letter))
    assert sorted((tmp_path / "table.versions").rglob("*")) == before


def test_a_store_that_is_a_link_is_refused_and_left_alone(tmp_path):
    outside = tmp_path / "elsewhere"
    (outside / "000001.partial").mkdir(parents=True)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "set.versions").symlink_to(outside)
    with pytest.raises(
        BundleError, match=r"set\.versions: expected the folder of versions, found something else"
    ):
        write(folder, version("a"))
    assert [path.name for path in outside.iterdir()] == ["000001.partial"]
    assert [path.name for path in folder.iterdir()] == ["set.versions"]


def test_links_within_our_own_store_are_removed_themselves(tmp_path):
    outside = tmp_path / "elsewhere"
    (outside / "kept").mkdir(parents=True)
    folder = tmp_path / "models"
    write(folder, version("a"))
    for link in ("000009.partial", "current.new", "000000"):
        (folder / "set.versions" / link).symlink_to(outside)
    for letter in "bcdef":
        write(folder, version(letter))
    assert read(folder) == version("f")
    assert (outside / "kept").is_dir()
    assert temporary_files(folder) == []


def test_a_file_of_more_bytes_than_its_kind_has_is_refused_unread(tmp_path):
    for name in KNOWN:
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(
        BundleError, match=r"set\.pt: 1,099,511,627,776 bytes, more than any such file \(1,048,576\)"
    ):
        read(tmp_path)
