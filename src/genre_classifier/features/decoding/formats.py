"""Recognise audio files by their suffixes. Imports no audio library."""

from __future__ import annotations

import shlex
from pathlib import Path

_WAVE = {"WAV", "WAVEX", "RF64", "W64", "NIST"}

# libsndfile's names of the formats that a file with each suffix may have. Not supported: RAW (no rate or channels),
# MAT4 and MAT5 (matrices of anything), XI (a single instrument).
FORMATS = {
    ".wav": _WAVE,
    ".mp3": {"MP3"},
    ".flac": {"FLAC"},
    ".ogg": {"OGG"},
    ".oga": {"OGG"},
    ".opus": {"OGG"},
    ".aiff": {"AIFF"},
    ".aif": {"AIFF"},
    ".aifc": {"AIFF"},
    ".au": {"AU"},
    ".snd": {"AU", "MPC2K"},
    ".caf": {"CAF"},
    ".w64": {"W64"},
    ".rf64": {"RF64"},
    ".wave": _WAVE,
    ".bwf": _WAVE,
    ".mp2": {"MP3"},
    ".mp1": {"MP3"},
    ".mpga": {"MP3"},
    ".voc": {"VOC"},
    ".svx": {"SVX"},
    ".8svx": {"SVX"},
    ".16sv": {"SVX"},
    ".iff": {"SVX", "AIFF"},
    ".sf": {"IRCAM"},
    ".ircam": {"IRCAM"},
    ".paf": {"PAF"},
    ".pvf": {"PVF"},
    ".avr": {"AVR"},
    ".sph": {"NIST"},
    ".nist": {"NIST"},
    ".sd2": {"SD2"},
    ".sds": {"SDS"},
    ".wve": {"WVE"},
    ".htk": {"HTK"},
}
SUFFIXES = tuple(FORMATS)
SHOWN = "WAV, MP3, FLAC, OGG, Opus, AIFF, AU, CAF or another format of libsndfile"

# Suffixes of files that lie beside music.
_COMPANIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".avif"),
    *(".svg", ".ico", ".psd", ".xcf", ".pdf", ".txt", ".md", ".rst", ".rtf", ".doc", ".docx", ".odt", ".nfo"),
    *(".diz", ".log", ".htm", ".html", ".url", ".webloc", ".lnk", ".desktop", ".ini", ".inf", ".db", ".dat"),
    *(".cue", ".toc", ".m3u", ".m3u8", ".pls", ".xspf", ".wpl", ".asx", ".lrc", ".srt", ".ass", ".torrent"),
    *(".sfv", ".md5", ".sha1", ".sha256", ".ffp", ".st5", ".par2", ".accurip", ".pkf", ".sfk", ".asd"),
    *(".reapeaks", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".parquet", ".npy"),
    *(".npz", ".pkl", ".h5", ".hdf5", ".sqlite", ".jams", ".lab", ".beats", ".textgrid", ".rpp", ".als"),
    *(".py", ".ipynb", ".sh", ".bat", ".ps1", ".exe", ".dll", ".plist", ".bak", ".tmp", ".conf", ".bib"),
    *(".lock", ".gitignore"),
}
_COMPANION_NAMES = {
    *("readme", "license", "licence", "copying", "notice", "authors", "changelog", "changes", "checksums"),
    *("md5sums", "sha1sums", "sha256sums", "icon\r", "makefile", "contents", "index"),
}
# Folders that systems and programs make.
_SYSTEM_FOLDERS = {
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "lost+found",
    "system volume information",
}


def is_readable(name: str) -> bool:
    """Return whether a file of this name is read."""
    return get_suffix(name) in FORMATS


def is_companion(name: str) -> bool:
    """Return whether a file of this name holds no music: a cover, a playlist, a log and the like."""
    return get_suffix(name) in _COMPANIONS or name.lower() in _COMPANION_NAMES


def is_system_folder(name: str) -> bool:
    """Return whether a folder of this name belongs to a system or program. Hidden folders do."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def get_suffix(name: str) -> str:
    """Return a name's suffix with its dot, in lower case; '' if it has none."""
    return Path(name).suffix.lower()


def suggest_conversion(path: Path) -> str:
    """Return the advice for a file of an unsupported format."""
    target = path.with_name(f"{path.stem or path.name}.flac").name
    return f"convert it, for example with: ffmpeg -i {shlex.quote(path.name)} {shlex.quote(target)}"
