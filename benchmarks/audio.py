"""Audio features: milliseconds a clip beside librosa, decoding, the first clip of a process, and files a second.

    python benchmarks/audio.py [--repeats 9] [--files 200]

A clip is 30 s of the demo data's rendered music, mono at the set's sample rate, measured on one thread. The peer of
each hand-made feature set is librosa called function by function in the same run, the two taking turns; musicnn's is
the same network by torch's convolutions, patch by patch, on librosa's spectrogram. Milliseconds are of processor time,
which other work on the machine disturbs least. A fresh process is timed by the clock, from its start to its first
features, with whatever compiled code librosa's cache holds; its memory is the largest it ever had. The files for the
rate are 30-second MP3s of 44.1 kHz stereo; each number of jobs measures all of them with an empty cache. musicnn's
weights must be there (genre-classifier download musicnn).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FORMATS = {
    "WAV, 22.05 kHz mono": ("wav", 22_050, 1),
    "FLAC, 22.05 kHz mono": ("flac", 22_050, 1),
    "OGG, 22.05 kHz mono": ("ogg", 22_050, 1),
    "MP3, 22.05 kHz mono": ("mp3", 22_050, 1),
    "MP3, 44.1 kHz stereo, resampled": ("mp3", 44_100, 2),
}
FRESH = {
    "core20": "from genre_classifier.features.spectral.core20 import extract_core20 as extract",
    "core20 by librosa": "from tests.features.reference import librosa_core20 as extract",
    "gtzan57": "from genre_classifier.features.spectral.gtzan57 import extract_gtzan57 as extract",
    "fma518": "from genre_classifier.features.spectral.fma518 import extract_fma518 as extract",
    "musicnn": "from genre_classifier.features.pretrained.musicnn import extract_musicnn as extract",
}


def clip(name: str = "core20") -> np.ndarray:
    """Return 30 s of rendered music at a feature set's sample rate."""
    import soxr

    from genre_classifier.features.sets import FEATURE_SETS
    from tools.demo.compose import compose
    from tools.demo.render import render

    parts = [render(compose(1, genre, 1, 1)) for genre in ("Rock", "Jazz", "Electronic", "Folk")]
    y = np.concatenate(parts)[: 30 * 22_050]
    return np.asarray(soxr.resample(y, 22_050, FEATURE_SETS[name].sample_rate))


def taking_turns(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Return each function's median processor time in milliseconds, the functions called in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()
    for _ in range(repeats):
        for place, function in enumerate(functions):
            started = time.process_time()
            function()
            times[place].append((time.process_time() - started) * 1e3)
    return [statistics.median(found) for found in times]


def table(header: list[str], lines: list[list[str]]) -> str:
    """Return a Markdown table."""
    from machine import table  # imports torch, which a process that measures files is not to do

    return table(header, lines)


def musicnn_by_torch() -> Callable[[np.ndarray], np.ndarray]:
    """Return the features of musicnn by torch's convolutions, patch by patch, on librosa's spectrogram."""
    import librosa
    import torch
    from torch.nn import functional

    from genre_classifier.features.pretrained.weights import load_weights

    torch.set_num_threads(1)
    weights = {name: torch.from_numpy(values.copy()) for name, values in load_weights().items()}

    def normalize(x: torch.Tensor, number: int) -> torch.Tensor:
        layer = f"batch_normalization_{number}" if number else "batch_normalization"
        names = ("moving_mean", "moving_variance", "gamma", "beta")
        return functional.batch_norm(x, *(weights[f"{layer}/{name}"] for name in names), eps=1e-3)

    def convolve(x: torch.Tensor, number: int) -> torch.Tensor:
        layer = f"conv2d_{number}" if number else "conv2d"
        kernel = weights[f"{layer}/kernel"].permute(3, 2, 0, 1)
        before = (kernel.shape[2] - 1) // 2
        padded = functional.pad(x, (0, 0, before, kernel.shape[2] - 1 - before))
        found = normalize(functional.conv2d(padded, kernel, weights[f"{layer}/bias"]).relu(), number + 1)
        return found.amax(dim=3).transpose(1, 2)[:, None]  # (patch, 1, time, filter)

    def dense(x: torch.Tensor, layer: str) -> torch.Tensor:
        return x @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"]

    @torch.inference_mode()
    def extract(y: np.ndarray) -> np.ndarray:
        mel = librosa.feature.melspectrogram(
            y=y, sr=16_000, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect"
        )
        frames = np.log10(10_000 * mel.T.astype(np.float16).astype(np.float32) + 1)
        outputs = []
        for start in range(0, len(frames) - 186, 187):
            x = normalize(torch.from_numpy(frames[start : start + 187])[None, None], 0)
            front = torch.cat([convolve(x, number) for number in range(5)], dim=3)
            first = convolve(front, 5)
            second = convolve(first, 6) + first
            third = convolve(second, 7) + second
            channels = torch.cat([front, first, second, third], dim=3)[:, 0]
            pooled = torch.stack([channels.amax(dim=1), channels.mean(dim=1)], dim=2).flatten(1)
            penultimate = normalize(dense(normalize(pooled, 9), "dense").relu(), 10)
            outputs.append(torch.cat([dense(penultimate, "dense_1").sigmoid(), penultimate], dim=1))
        return torch.cat(outputs).double().mean(dim=0).numpy()

    return extract


def sets(repeats: int) -> str:
    """Return a table of the sets beside their peers, with the largest difference."""
    from genre_classifier.features.measure import get_extractor
    from tests.features import reference

    lines = []
    peers = {name: getattr(reference, f"librosa_{name}") for name in ("core20", "gtzan57", "fma518")}
    for name, peer in {**peers, "musicnn": musicnn_by_torch()}.items():
        extract = get_extractor(name)
        y = clip(name)
        n = repeats if name == "core20" else max(3, repeats // 3)
        ours, theirs = taking_turns([lambda: extract(y), lambda: peer(y)], n)  # noqa: B023
        found, expected = extract(y).astype(np.float64), peer(y)
        worst = np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1e-2))
        lines.append([name, f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.1f}", f"{worst:.0e}"])
    return table(["set", "ms a clip", "librosa or torch", "ratio", "largest difference"], lines)


def decoding(y: np.ndarray, folder: Path, repeats: int) -> str:
    """Return a table of what decoding a 30-second clip takes."""
    from genre_classifier.features.decoding.audio import Excerpt, open_audio

    lines = []
    for place, (name, (suffix, rate, channels)) in enumerate(FORMATS.items()):
        path = write(folder / f"{place}.{suffix}", y, rate, channels)

        def decode(path: Path = path) -> object:
            with open_audio(path) as recording:
                return list(recording.read_clips(Excerpt()))

        [milliseconds] = taking_turns([decode], repeats)
        lines.append([name, f"{milliseconds:.1f}"])
    return table(["decoding", "ms a clip"], lines)


def write(path: Path, y: np.ndarray, rate: int, channels: int) -> Path:
    """Write the clip at a sample rate, to as many equal channels."""
    import soundfile
    import soxr

    samples = y if rate == 22_050 else soxr.resample(y, 22_050, rate)
    frames = np.repeat(samples[:, None], channels, axis=1)
    with soundfile.SoundFile(path, "w", rate, channels) as file:
        for block in np.array_split(frames, 100):
            file.write(block)
    return path


def fresh(folder: Path, repeats: int) -> str:
    """Return a table of seconds from the start of a process to its first features, and of its memory."""
    lines = []
    for name, imports in FRESH.items():
        np.save(folder / "clip.npy", clip(name.partition(" ")[0]))
        code = (
            f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'src')]!r}\nimport numpy as np\n{imports}\n"
        )
        code += f"extract(np.load({str(folder / 'clip.npy')!r}))\n"
        code += (
            "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            result = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
            times.append(time.perf_counter() - started)
        lines.append([name, f"{statistics.median(times):.2f}", f"{int(result.stdout) / 1024:.0f}"])
    return table(["a fresh process, with its first clip", "s", "MiB"], lines)


def rate(y: np.ndarray, folder: Path, n_files: int) -> str:
    """Return a table of files a second of the whole command's measuring."""
    from genre_classifier.features.discovery import find_audio
    from genre_classifier.features.extract import Settings, extract

    music = folder / "music" / "Genre"
    music.mkdir(parents=True)
    first = write(music / "0.mp3", y, 44_100, 2).read_bytes()
    for number in range(1, n_files):
        # A tag at the end, so that no two files have the same content.
        (music / f"{number}.mp3").write_bytes(first + b"TAG" + str(number).encode().ljust(125, b"\0"))
    lines = []
    for name in ("core20", "musicnn"):
        files = find_audio(folder / "music")[: n_files if name == "core20" else max(1, n_files // 4)]
        for jobs in (1, 2):
            settings = Settings(name, jobs=jobs, cache=folder / f"{name}-{jobs}.sqlite", progress=False)
            extraction = extract(files, settings)
            lines.append([name, str(jobs), f"{len(files) / extraction.seconds:.1f}"])
        known = extract(files, settings)
        lines.append([name, "measured before", f"{len(files) / known.seconds:.0f}"])
    return table(["features of MP3s", "jobs", "files a second"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--files", type=int, default=200)
    arguments = parser.parse_args()
    from machine import describe
    from threadpoolctl import threadpool_limits

    print(describe(), flush=True)
    y = clip()
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        folder = Path(name)
        print("\n" + sets(arguments.repeats), flush=True)
        print("\n" + decoding(y, folder, arguments.repeats), flush=True)
        print("\n" + fresh(folder, max(3, arguments.repeats // 3)), flush=True)
        print("\n" + rate(y, folder, arguments.files), flush=True)


if __name__ == "__main__":
    main()
