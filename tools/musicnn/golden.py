"""Write tests/features/musicnn_golden.npz anew: what musicnn's own TensorFlow graph says of known signals.

TensorFlow is no dependency of this project. Run this in an environment that you throw away, from the repository's
root::

    python -m venv FOLDER
    FOLDER/bin/pip install tensorflow-cpu librosa soundfile soxr
    pip download --no-deps musicnn==0.1.0
    FOLDER/bin/python -m tools.musicnn.golden musicnn-0.1.0-py3-none-any.whl

The package itself is not installed, and none of its code runs. Of each signal in :mod:`tools.musicnn.signals` the file
has, under ``NAME/...``:

``tags`` (patch, 50), ``penultimate`` (patch, 200)
    the graph's outputs, float32
``log_mel`` (2,)
    the sum and the maximum of the graph's input, float64
``max_pool``, ``mean_pool`` (patch, 753)
    the pooled channels, of the signals in POOLED only
``mel`` (patch, 187, 96)
    the mel spectrogram as float16 before its logarithm, of the signals in WITH_INPUT only. This is exactly what the
    graph was given: a test of the network needs no spectrogram.

``tag_names`` are the 50 tags in the graph's order; ``made_with`` is JSON: the versions of the libraries and the
wheel's SHA-256.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tools.musicnn.signals import HOP, RATE, make_signal, signal_names

GOLDEN = Path(__file__).parents[2] / "tests" / "features" / "musicnn_golden.npz"
LIBRARIES = ("tensorflow-cpu", "numpy", "librosa", "soundfile", "soxr")
FRAMES = 187  # per patch
POOLED = ("white noise at -20 dB", "chord of 0.5 s", "demo/rock-artist-08-track-01")
WITH_INPUT = ("chord of 0.5 s", "187 frames")
OUTPUTS = {
    "tags": "model/Sigmoid:0",
    "penultimate": "model/batch_normalization_10/batchnorm/add_1:0",
    "max_pool": "model/Max:0",
    "mean_pool": "model/moments/Squeeze:0",
}


def compute_mel(y: np.ndarray) -> np.ndarray:
    """Return the mel spectrogram of a signal as float16, shape (frame, 96).

    The arguments are librosa 0.7's defaults, with which the model was trained. Its padding was by reflection; since
    0.9 the default is zeros.
    """
    import librosa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a signal shorter than one window
        mel = librosa.feature.melspectrogram(
            y=y,
            sr=RATE,
            n_fft=512,
            hop_length=HOP,
            n_mels=96,
            window="hann",
            center=True,
            pad_mode="reflect",
            power=2.0,
            fmin=0.0,
            fmax=RATE / 2,
            htk=False,
            norm="slaney",
        )
    return mel.T.astype(np.float16)


def split_patches(mel: np.ndarray) -> np.ndarray:
    """Return the patches of a spectrogram (frame, 96), shape (patch, 187, 96); frames left at the end are dropped.

    Where there are fewer frames than one patch has, they are repeated, as the model's training did ('repeat-pad').
    """
    if len(mel) < FRAMES:
        mel = np.tile(mel, (-(-FRAMES // len(mel)), 1))[:FRAMES]
    n_patches = len(mel) // FRAMES
    return mel[: n_patches * FRAMES].reshape(n_patches, FRAMES, mel.shape[1])


def compress(mel: np.ndarray) -> np.ndarray:
    """Return log10(10000 mel + 1) in float32, as NumPy before 2 computed it: in float16 it would overflow."""
    return np.log10(np.float32(10_000) * mel.astype(np.float32) + np.float32(1))


def run_graph(folder: Path, patches: dict[str, np.ndarray]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield each signal's name and the graph's OUTPUTS for its log-mel patches (patch, 187, 96), one patch a run.

    Parameters
    ----------
    folder : Path
        Has the checkpoint's three files: .meta, .index, .data-00000-of-00001.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    import tensorflow as tf
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

    meta = MetaGraphDef.FromString((folder / ".meta").read_bytes())
    for node in meta.graph_def.node:
        node.attr.pop("_output_shapes", None)  # TensorFlow 1.12's shapes of gradients contradict today's
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(meta, clear_devices=True).restore(session, f"{folder}/")
        for name, log_mel in patches.items():
            runs = [
                session.run(OUTPUTS, {"model/Placeholder:0": patch[None], "model/Placeholder_2:0": False})
                for patch in log_mel
            ]
            yield name, {key: np.stack([run[key].reshape(-1) for run in runs]) for key in OUTPUTS}


def read_tag_names(wheel: zipfile.ZipFile) -> list[str]:
    """Return the tags in the graph's order. The module that names them is parsed, not run."""
    for statement in ast.parse(wheel.read("musicnn/configuration.py")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "MSD_LABELS":
            return list(ast.literal_eval(statement.value))
    raise ValueError("musicnn/configuration.py has no MSD_LABELS; is this musicnn 0.1.0?")


def main(path: Path) -> None:
    mels = {name: split_patches(compute_mel(make_signal(name))) for name in signal_names()}
    inputs = {name: compress(mel) for name, mel in mels.items()}
    arrays: dict[str, np.ndarray] = {}
    with TemporaryDirectory() as temporary, zipfile.ZipFile(path) as wheel:
        for suffix in (".meta", ".index", ".data-00000-of-00001"):
            Path(temporary, suffix).write_bytes(wheel.read(f"musicnn/MSD_musicnn/{suffix}"))
        for name, outputs in run_graph(Path(temporary), inputs):
            kept = ("tags", "penultimate", *(("max_pool", "mean_pool") if name in POOLED else ()))
            arrays |= {f"{name}/{key}": outputs[key] for key in kept}
            exact = inputs[name].astype(np.float64)
            arrays[f"{name}/log_mel"] = np.array([exact.sum(), exact.max()])
            if name in WITH_INPUT:
                arrays[f"{name}/mel"] = mels[name]
            best = outputs["tags"].mean(axis=0).argmax()
            print(f"{name}: {len(exact)} patches, most of all tag {best}")
        arrays["tag_names"] = np.array(read_tag_names(wheel))
    made_with = {library: version(library) for library in LIBRARIES}
    made_with["wheel"] = hashlib.sha256(path.read_bytes()).hexdigest()
    arrays["made_with"] = np.array(json.dumps(made_with))
    new = GOLDEN.with_suffix(".new.npz")
    np.savez_compressed(new, **arrays)
    new.replace(GOLDEN)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes; {made_with}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("wheel", type=Path, help="musicnn-0.1.0-py3-none-any.whl, as pip downloads it")
    main(parser.parse_args().wheel)
