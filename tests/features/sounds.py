"""Audio files for the tests, written on the spot."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile", reason="needs the extra audio")
soxr = pytest.importorskip("soxr", reason="needs the extra audio")

FORMATS = {
    **{"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3", "au": "AU", "aiff": "AIFF", "w64": "W64"},
    **{"rf64": "RF64", "caf": "CAF"},
}


def music(seconds: float = 3.0, rate: int = 22_050, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Return some tones over noise, shape (frame, channel)."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * f * time) for f in rng.uniform(100, 2000, 4))
    noise = rng.standard_normal((time.size, channels))
    return (0.05 * tones[:, None] * rng.uniform(0.5, 1.0, channels) + 0.02 * noise).astype(np.float32)


def write(
    path: Path, samples: np.ndarray | None = None, rate: int = 22_050, artist: str | None = None
) -> Path:
    """Write samples (frame, channel), or some music, in the format of the path's suffix."""
    samples = music(rate=rate) if samples is None else samples
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = samples.shape[1] if samples.ndim == 2 else 1
    with soundfile.SoundFile(path, "w", rate, channels, format=FORMATS[path.suffix[1:]]) as file:
        if artist is not None:
            file.artist = artist
        for block in np.array_split(samples, max(1, len(samples) // 20_000)):
            file.write(block)  # libsndfile's Vorbis encoder overflows on long writes
    return path


def collection(root: Path, genres: tuple[str, ...] = ("Jazz", "Rock"), n_tracks: int = 2) -> Path:
    """Write FOLDER/GENRE/NUMBER.wav, each of another sound."""
    for place, genre in enumerate(genres):
        for number in range(n_tracks):
            write(root / genre / f"{number}.wav", music(1.5, seed=100 * place + number))
    return root


def abort_at_crash(path: Path) -> str:
    """End the process as a broken decoder does, if the file's name is crash.wav."""
    if path.name == "crash.wav":
        os.abort()
    return "measured"
