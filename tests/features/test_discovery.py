"""Which files are found, and what their folders and lists say of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from genre_classifier.errors import DataError
from genre_classifier.features.discovery import AudioFile, describe_failures, find_audio, read_list, scan


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_folders_name_genre_and_group(tmp_path: Path) -> None:
    for name in (
        "Rock/a.WAV",
        "Jazz/Miles/So What/b.mp3",
        "Jazz/c.flac",
        "Jazz/notes.txt",
        "Jazz/.d.ogg",
        ".x/e.au",
    ):
        touch(tmp_path / name)
    assert find_audio(tmp_path) == [
        AudioFile(tmp_path / "Jazz/Miles/So What/b.mp3", "Jazz/Miles/So What/b.mp3", "Jazz", "Miles"),
        AudioFile(tmp_path / "Jazz" / "c.flac", "Jazz/c.flac", "Jazz", None),
        AudioFile(tmp_path / "Rock" / "a.WAV", "Rock/a.WAV", "Rock", None),
    ]


def test_files_beside_the_folders_have_no_genre(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path / "a.wav")
    assert [file.genre for file in find_audio(tmp_path)] == [None]
    assert not caplog.text
    touch(tmp_path / "Rock" / "b.wav")
    assert [file.genre for file in find_audio(tmp_path)] == ["Rock", None]
    assert "1 files lie beside the genres' folders" in caplog.text


def test_a_loop_of_links_ends_and_links_are_followed(tmp_path: Path) -> None:
    elsewhere = touch(tmp_path / "elsewhere" / "b.wav").parent
    root = touch(tmp_path / "music" / "Rock" / "a.wav").parents[1]
    (root / "Rock" / "again").symlink_to(root, target_is_directory=True)
    (root / "Jazz").symlink_to(elsewhere, target_is_directory=True)
    assert [file.id for file in find_audio(root)] == ["Jazz/b.wav", "Rock/a.wav"]


@pytest.mark.parametrize(
    "make", [lambda root: None, lambda root: (root / "Rock").mkdir(), lambda root: touch(root / "a.txt")]
)
def test_a_folder_without_audio_is_refused(make, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=r"no audio file in it; expected FOLDER/GENRE/FILE with .wav, .mp3"):
        find_audio(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        find_audio(tmp_path / "gone")
    with pytest.raises(DataError, match=r"is a file; name it with --files list\.csv"):
        find_audio(touch(tmp_path / "list.csv"))


def test_two_genres_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    for genre in ("Rock", "rock"):
        touch(tmp_path / genre / "a.wav")
    with pytest.raises(DataError, match="genres 'Rock' and 'rock' differ in case only"):
        find_audio(tmp_path)


NFC, NFD = "Forr\u00f3", "Forro\u0301"


def test_names_are_composed_as_macos_does_not_write_them(tmp_path: Path) -> None:
    touch(tmp_path / NFD / NFD / "a.wav")
    touch(tmp_path / NFC / "b.wav")
    found = {(file.genre, file.group, file.id) for file in find_audio(tmp_path)}
    assert found == {(NFC, NFC, f"{NFC}/{NFC}/a.wav"), (NFC, None, f"{NFC}/b.wav")}
    assert listed(tmp_path, f"path,genre,group\n{NFD}.wav,{NFD},{NFD}\n") == [
        AudioFile(tmp_path / f"{NFD}.wav", f"{NFC}.wav", NFC, NFC)
    ]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in (NFC, NFD):
        touch(tmp_path / "Rock" / f"{name}.wav")
    with pytest.raises(DataError, match="differ in Unicode form or spaces only"):
        find_audio(tmp_path)


def test_names_of_any_bytes_are_found_as_text(tmp_path: Path) -> None:
    touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9\xff/\xfe.wav")))
    touch(tmp_path / "日本語" / "🎵.wav")
    assert [(file.genre, file.id) for file in find_audio(tmp_path)] == [
        ("日本語", "日本語/🎵.wav"),
        ("\\xe9\\xff", "\\xe9\\xff/\\xfe.wav"),
    ]


def problems(root: Path) -> dict[str, tuple[str | None, str, str]]:
    """Genre, kind and reason of what cannot be measured, by its id."""
    return {
        file.id: (file.genre, file.problem.kind, file.problem.reason)
        for file in scan(root).files
        if file.problem is not None
    }


@pytest.mark.parametrize("name", ["a.m4a", "b.WMA", "c.mp4", "d.mid", "e.unheardof", "f", "g.mp3.part"])
def test_what_may_be_music_and_is_not_read_is_a_problem(name: str, tmp_path: Path) -> None:
    touch(tmp_path / "Rock" / "x.wav")
    path = touch(tmp_path / "Jazz" / "Miles" / name)
    [(key, (genre, kind, reason))] = problems(tmp_path).items()
    assert (key, genre, kind) == (f"Jazz/Miles/{name}", "Jazz", "unsupported")
    what = path.suffix.lower() or "a file without suffix"
    assert reason.startswith(f"{path}: {what} is not read; convert it, for example with: ffmpeg -i {name} ")


def test_what_lies_beside_music_is_counted_and_no_problem(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (
        "x.wav",
        "cover.JPG",
        "back.jpg",
        "disc.cue",
        "Thumbs.db",
        "README",
        ".x.wav.swp",
        "._x.wav",
    ):
        touch(tmp_path / "Rock" / name)
    touch(tmp_path / "__MACOSX" / "Rock" / "._x.wav")
    touch(tmp_path / ".git" / "y.wav")
    touch(tmp_path / "index.html")
    found = scan(tmp_path)
    assert [file.id for file in found.files] == ["Rock/x.wav"]
    assert found.n_others == {".jpg": 2, ".cue": 1, ".db": 1, "README": 1, "hidden": 2, ".html": 1}
    assert found.describe_others().startswith(
        "8 files that are not music passed over (2 .jpg, 2 hidden, 1 .cue, "
    )
    with caplog.at_level(logging.INFO):
        assert find_audio(tmp_path) == found.files
    assert f"{tmp_path}: {found.describe_others()}" in caplog.text


@pytest.mark.parametrize(
    ("names", "holds"),
    [
        ([], "holds no file"),
        (["cover.jpg", "a.txt", "b.txt"], "holds no music, 2 .txt, 1 .jpg"),
        ([".a.wav"], "holds no music, 1 hidden"),
        (["Album/cover.jpg"], "holds no music, 1 .jpg"),
    ],
)
def test_a_genres_folder_without_music_is_a_problem(names: list[str], holds: str, tmp_path: Path) -> None:
    touch(tmp_path / "Rock" / "x.wav")
    folder = tmp_path / "Jazz"
    folder.mkdir()
    for name in names:
        touch(folder / name)
    assert problems(tmp_path) == {"Jazz": ("Jazz", "empty", f"{folder} {holds}")}


@pytest.mark.parametrize("below", ["Jazz", "Jazz/Miles"])
def test_a_folder_that_cannot_be_looked_into_is_a_problem(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "Rock" / "x.wav")
    touch(tmp_path / "Jazz" / "Miles" / "y.wav")
    original = os.scandir

    def refuse(path: Path):
        if path == tmp_path / below:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)  # as tests may run as root, whom nothing is denied
    reason = f"{tmp_path / below} cannot be looked into: Permission denied"
    assert problems(tmp_path) == {below: ("Jazz", "unreadable", reason)}
    monkeypatch.setattr(os, "scandir", lambda path: refuse(tmp_path / below))
    with pytest.raises(DataError, match="cannot be looked into: Permission denied"):
        scan(tmp_path)


@pytest.mark.parametrize("name", ["y.mp3", "Jazz/y.mp3", "Jazz", "Jazz/Miles"])
def test_a_link_to_nowhere_is_a_problem(name: str, tmp_path: Path) -> None:
    touch(tmp_path / "Rock" / "x.wav")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "gone")
    [(key, (genre, kind, reason))] = problems(tmp_path).items()
    assert (key, genre, kind) == (name, None if name == "y.mp3" else "Jazz", "unreadable")
    assert f"is a link to {tmp_path / 'gone'}, which does not exist" in reason


def test_a_second_genre_that_is_the_same_folder_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path / "Jazz" / "x.wav")
    (tmp_path / "Rock").symlink_to(tmp_path / "Jazz", target_is_directory=True)
    reason = f"{tmp_path / 'Rock'} is the same folder as {tmp_path / 'Jazz'}, whose files are taken"
    assert problems(tmp_path) == {"Rock": ("Rock", "empty", reason)}


def test_what_is_left_out_is_counted_by_suffix_and_genre(tmp_path: Path) -> None:
    for name in ("Jazz/a.m4a", "Jazz/Miles/b.M4A", "Rock/c.wma", "Rock/d.wav", "e.ape"):
        touch(tmp_path / name)
    failures = [(file, file.problem) for file in scan(tmp_path).files if file.problem is not None]
    assert describe_failures(failures) == (
        f"4 files left out: 2 .m4a in Jazz (unsupported), 1 .wma in Rock (unsupported), "
        f"1 .ape in {tmp_path} (unsupported)"
    )


def test_a_folder_of_other_formats_only_says_which(tmp_path: Path) -> None:
    for number in range(3):
        touch(tmp_path / "Rock" / f"{number}.m4a")
    with pytest.raises(
        DataError, match=r"no audio file in it; .*3 files left out: 3 \.m4a in Rock .* convert it"
    ):
        find_audio(tmp_path)


def listed(tmp_path: Path, text: str) -> list[AudioFile]:
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8-sig")
    return read_list(path)


def test_a_list_names_path_id_genre_and_group(tmp_path: Path) -> None:
    files = listed(tmp_path, 'path,genre,group,id,year\na.wav,"Forró, Baião",Luiz,1,1950\n/b/c.mp3,,,,\n')
    assert files == [
        AudioFile(tmp_path / "a.wav", "1", "Forró, Baião", "Luiz"),
        AudioFile(Path("/b/c.mp3"), "/b/c.mp3", None, None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no column 'path'; it has no header"),
        ("file,genre\na.wav,Rock\n", "there is no column 'path'; it has file, genre"),
        ("path\n", "has a header but lists no file"),
        ("path,genre\n,Rock\n", "row 2: the path is empty"),
        ("path\na.wav\na.wav\n", "row 3: id 'a.wav' is that of row 2 as well"),
        ("path,genre\na.wav,Rock\nb.wav,ROCK\n", "genres 'ROCK' and 'Rock' differ in case only"),
    ],
)
def test_a_bad_list_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        listed(tmp_path, text)


def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_list(tmp_path / "gone.csv")
    (tmp_path / "list.csv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(DataError, match="cannot be read as a list of files"):
        read_list(tmp_path / "list.csv")
