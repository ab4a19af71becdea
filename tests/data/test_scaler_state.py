from __future__ import annotations

import json
import pickle
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from genre_classifier.data.scaler_state import MAX_PICKLE_BYTES, ScalerStatistics
from genre_classifier.errors import BundleError
from tests.example_models import FEATURES, make_rows, make_scaler

SCALERS = Path(__file__).parents[1] / "formats" / "scalers"
OLD_PICKLES = sorted(SCALERS.glob("*.pkl"))
ROWS = make_rows()


def fitted_in_every_way() -> dict[str, StandardScaler]:
    import pandas as pd

    with_gaps = ROWS.copy()
    with_gaps[::7, 3] = np.nan
    constant = ROWS.copy()
    constant[:, 5] = 4.25
    return {
        "plain": make_scaler(ROWS),
        "no mean": StandardScaler(with_mean=False).fit(ROWS),
        "no std": StandardScaler(with_std=False).fit(ROWS),
        "neither": StandardScaler(with_mean=False, with_std=False).fit(ROWS),
        "float32": StandardScaler().fit(ROWS.astype(np.float32)),
        "gaps": StandardScaler().fit(with_gaps),
        "constant": StandardScaler().fit(constant),
        "weighted": StandardScaler().fit(ROWS, sample_weight=np.linspace(0.1, 1.0, len(ROWS))),
        "partial": StandardScaler().partial_fit(ROWS[:50]).partial_fit(ROWS[50:]),
        "named": StandardScaler().fit(pd.DataFrame(ROWS, columns=list(FEATURES))),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("way", fitted_in_every_way())
def test_every_fitted_scaler_comes_back_the_same(way, protocol):
    scaler = fitted_in_every_way()[way]
    statistics = ScalerStatistics.of(scaler)
    assert ScalerStatistics.from_pickle(pickle.dumps(scaler, protocol=protocol), "s.pkl") == statistics
    there_and_back = json.loads(json.dumps(statistics.to_metadata(), allow_nan=False))
    assert ScalerStatistics.from_metadata(there_and_back, "m.json") == statistics
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rebuilt = statistics.build()
    rows = ROWS if way != "named" else __import__("pandas").DataFrame(ROWS, columns=list(FEATURES))
    assert np.array_equal(rebuilt.transform(rows), scaler.transform(rows))
    assert np.array_equal(rebuilt.inverse_transform(ROWS), scaler.inverse_transform(ROWS))
    assert ScalerStatistics.of(rebuilt).describe_difference(statistics) is None


@pytest.mark.parametrize("path", OLD_PICKLES, ids=lambda path: path.stem)
def test_a_scaler_of_another_version_gives_the_same_numbers_without_a_warning(path):
    expected = json.loads(path.with_name(f"{path.stem.rsplit('-', 1)[0]}.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaler = ScalerStatistics.from_pickle(path.read_bytes(), str(path)).build()
        assert scaler.transform([expected["row"]])[0].tolist() == expected["transformed"]


def test_old_pickles_are_there():
    assert len(OLD_PICKLES) == 12
    versions = {path.name.split("-")[1] for path in OLD_PICKLES}
    assert versions == {"1.3.2", "1.5.2", "1.6.1", "1.9.1"}


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def named_global(module: str, name: str, *arguments: str) -> bytes:
    """Return a pickle of protocol 4 that calls a name found by STACK_GLOBAL."""
    out = b"\x80\x04"
    for text in (module, name):
        out += b"\x8c" + bytes([len(text)]) + text.encode()
    out += b"\x93("
    for text in arguments:
        out += b"X" + struct.pack("<I", len(text)) + text.encode()
    return out + b"tR."


def scaler_pickle_with(**attributes) -> bytes:
    scaler = make_scaler(ROWS)
    vars(scaler).update(attributes)
    return pickle.dumps(scaler, protocol=4)


def malicious(sentinel: Path) -> dict[str, tuple[bytes, str]]:
    """Return pickles that would make the file `sentinel`, or worse, with what the refusal says."""
    import functools
    import os
    import subprocess

    touch = f"touch {sentinel}"
    code = f"open({str(sentinel)!r}, 'w').close()"
    np_core = "numpy._core.multiarray"
    return {
        "os.system": (pickle.dumps(Call(os.system, touch)), r"asks for posix\.system"),
        "os.system, protocol 0": (f"cos\nsystem\n(S'{touch}'\ntR.".encode(), r"os\.system|uses STRING"),
        "eval": (pickle.dumps(Call(eval, code), protocol=2), r"asks for __builtin__\.eval"),
        "eval, protocol 4": (pickle.dumps(Call(eval, code), protocol=4), r"asks for builtins\.eval"),
        "exec": (pickle.dumps(Call(exec, code), protocol=4), r"asks for builtins\.exec"),
        "Popen": (pickle.dumps(Call(subprocess.Popen, ["touch", str(sentinel)])), r"subprocess\.Popen"),
        "partial": (pickle.dumps(Call(functools.partial, eval, code)), r"asks for functools\.partial"),
        "INST": (b"(S'x'\nios\nsystem\n.", r"asks for os\.system|uses STRING"),
        "INST first": (b"(ios\nsystem\n.", r"asks for os\.system"),
        "EXT1": (b"\x80\x02\x82\x01.", r"uses EXT1"),
        "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", r"uses EXT4"),
        "PERSID": (b"Pother\n.", r"uses PERSID"),
        "BINPERSID": (b"\x80\x02K\x01Q.", r"uses BINPERSID"),
        "NEWOBJ_EX": (b"\x80\x04K\x01K\x01K\x01\x92.", r"uses NEWOBJ_EX"),
        "dotted name": (
            named_global("sklearn.preprocessing._data", "StandardScaler.fit.__globals__"),
            r"asks for sklearn\.preprocessing\._data\.StandardScaler\.fit\.__globals__",
        ),
        "dotted numpy": (named_global("numpy", "dtype.__class__"), r"asks for numpy\.dtype\.__class__"),
        "numpy.load": (named_global("numpy", "load", str(sentinel)), r"asks for numpy\.load"),
        "numpy.fromfile": (named_global("numpy", "fromfile", str(sentinel)), r"asks for numpy\.fromfile"),
        "runstring": (
            named_global("numpy.testing._private.utils", "runstring", code),
            r"asks for numpy\.testing\._private\.utils\.runstring",
        ),
        "joblib": (named_global("joblib", "load", str(sentinel)), r"asks for joblib\.load"),
        "sklearn clone": (named_global("sklearn.base", "clone"), r"asks for sklearn\.base\.clone"),
        "getattr": (named_global("builtins", "getattr", "x", "y"), r"asks for builtins\.getattr"),
        "another scaler": (pickle.dumps(MinMaxScaler().fit(ROWS)), r"asks for sklearn.*MinMax"),
        "inside an attribute": (scaler_pickle_with(copy=Call(os.system, touch)), r"asks for posix\.system"),
        "inside an array": (
            scaler_pickle_with(mean_=np.array([Call(os.system, touch)], dtype=object)),
            r"asks for posix\.system",
        ),
        "codec": (named_global("_codecs", "encode", "x", "zlib"), r"not a pickled StandardScaler but a _codecs"),
        "array of objects": (scaler_pickle_with(mean_=np.array([1, "a"] * 10, dtype=object)), r"not strings"),
        "array of dates": (scaler_pickle_with(mean_=np.zeros(20, "M8[s]")), r"dtype '<' 'M8'"),
        "scalar with a pickle": (
            pickle.dumps(make_scaler(ROWS), protocol=4).replace(b"\x8c\x02f8", b"\x8c\x02O8"),
            r"not strings|not one-dimensional|content",
        ),
        "function as a scaler": (named_global(np_core, "_reconstruct"), r"not a pickled StandardScaler"),
        "state on a class": (
            b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93}\x8c\x04codeK\x01sb.",
            r"sets the attributes of a Name",
        ),
        "memo without end": (b"\x80\x02Nr\xff\xff\xff\x7f.", r"not a pickled StandardScaler but a NoneType"),
        "bytes without end": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", r"truncated"),
        "buffer without end": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", r"truncated"),
        "out-of-band buffer": (b"\x80\x05\x97.", r"uses NEXT_BUFFER"),
        "array without end": (
            pickle.dumps(make_scaler(ROWS), protocol=4).replace(b"K\x14\x85", b"J\xff\xff\xff\x7f\x85"),
            r"20 values in an array of shape \(2147483647,\)",
        ),
        "a key that is hashed for ever": (
            b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 60 + b"Ns.",
            r"a mapping with a tuple for a key",
        ),
        "a name that is written for ever": (
            b"\x80\x04]\x94" + b"\x5d\x94h\x00ah\x00a" * 60 + b"\x8c\x01x\x93.",
            r"a name that is no text",
        ),
        "a value in itself": (b"\x80\x04]\x94h\x00a.", r"not a pickled StandardScaler but a list"),
        "many steps": (b"\x80\x02" + b"N" * 600_000 + b".", r"more than 500,000 steps"),
        "a number that no float holds": (
            scaler_pickle_with(n_samples_seen_=10**400),
            "a whole number that 64 bits do not hold",
        ),
        "features that no file can have": (
            scaler_pickle_with(n_features_in_=10**12, with_mean=False, with_std=False, mean_=None, scale_=None),
            r"n_features=1000000000000, expected 1 to 100,000",
        ),
        "deep": (b"\x80\x02" + b")" + b"\x85" * 100_000 + b".", r"not a pickled StandardScaler"),
        "trailing": (pickle.dumps(make_scaler(ROWS)) + b"cos\nsystem\n.", r"12 bytes follow the end"),
        "too large": (bytes(MAX_PICKLE_BYTES + 1), r"more than any scaler takes"),
        "empty": (b"", r"truncated or not a pickle"),
        "a number": (pickle.dumps(3), r"not a pickled StandardScaler but a int"),
        "a dictionary": (pickle.dumps(vars(make_scaler(ROWS))["with_mean"]), r"but a bool"),
        "unfitted": (pickle.dumps(StandardScaler()), r"never fitted"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", malicious(Path("unused")))
def test_a_pickle_that_asks_for_anything_else_runs_nothing(kind, tmp_path):
    sentinel = tmp_path / "sentinel"
    content, message = malicious(sentinel)[kind]
    with pytest.raises(BundleError, match=message) as refused:
        ScalerStatistics.from_pickle(content, "scaler.pkl")
    assert str(refused.value).startswith("scaler.pkl: ")
    assert not sentinel.exists()


def test_the_malicious_pickles_run_when_python_unpickles_them(tmp_path):
    sentinel = tmp_path / "sentinel"
    content, _ = malicious(sentinel)["os.system"]
    pickle.loads(content)
    assert sentinel.exists()


def test_every_flipped_byte_of_a_pickle_is_refused_or_read():
    content = pickle.dumps(make_scaler(ROWS), protocol=4)
    for position in range(len(content)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[position] ^= flip
            try:
                ScalerStatistics.from_pickle(bytes(damaged), "scaler.pkl")
            except BundleError as error:
                assert str(error).startswith("scaler.pkl: ")  # noqa: PT017
        with pytest.raises(BundleError, match=r"scaler\.pkl"):
            ScalerStatistics.from_pickle(content[:position], "scaler.pkl")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(content):
    with pytest.raises(BundleError, match=r"scaler\.pkl"):
        ScalerStatistics.from_pickle(content, "scaler.pkl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": [0.0] * 20}, r"scale\[0\]=0\.0, which cannot scale"),
        ({"mean": [float("nan")] + [0.0] * 19}, r"mean\[0\]=nan"),
        ({"mean": ["1"] + [0.0] * 19}, r"mean\[0\]='1'"),
        ({"mean": [True] + [0.0] * 19}, r"mean\[0\]=True"),
        ({"mean": [10**400] + [0.0] * 19}, r"mean\[0\]=1000000.*, which cannot scale"),
        ({"mean": [-(10**400)] + [0.0] * 19}, r"mean\[0\]=-100000.*, which cannot scale"),
        ({"scale": [10**400] * 20}, r"scale\[0\]=1000000.*, which cannot scale"),
        ({"variance": [float("inf")] * 20}, r"variance\[0\]=inf, which cannot scale"),
        ({"n_features": 10**9}, r"n_features=1000000000, expected 1 to 100,000"),
        ({"n_samples_seen": 10**400}, r"n_samples_seen that are no numbers of rows"),
        ({"n_samples_seen": [1.0, 2.0]}, r"n_samples_seen that are no numbers of rows"),
        ({"n_samples_seen": "many"}, r"n_samples_seen that are no numbers of rows"),
        ({"n_samples_seen": {"a": 1}}, r"n_samples_seen that are no numbers of rows"),
        ({"mean": [0.0] * 19}, r"19 values of mean, expected 20"),
        ({"mean": 3.0}, r"float values of mean"),
        ({"mean": None}, r"no mean, which it needs"),
        ({"variance": [-1.0] * 20}, r"variance\[0\]=-1\.0"),
        ({"n_features": 0}, r"n_features=0"),
        ({"n_features": True}, r"n_features=True"),
        ({"with_mean": 1}, r"with_mean=1, expected true or false"),
        ({"feature_names": ["a"] * 20}, r"not 20 different strings"),
        ({"feature_names": [1] * 20}, r"not 20 different strings"),
        ({"feature_names": 0.0}, r"not 20 different strings"),
        ({"feature_names": "abcdefghijklmnopqrst"}, r"not 20 different strings"),
        ({"feature_names": {"a": 1}}, r"not 20 different strings"),
        ({"other": 1}, r"not the statistics of a StandardScaler"),
    ],
)
def test_statistics_that_cannot_be_are_refused(change, message):
    content = ScalerStatistics.of(make_scaler(ROWS)).to_metadata() | change
    with pytest.raises(BundleError, match=message):
        ScalerStatistics.from_metadata(content, "m.json")


def test_statistics_need_every_entry():
    content = ScalerStatistics.of(make_scaler(ROWS)).to_metadata()
    del content["scale"]
    with pytest.raises(BundleError, match=r"m\.json: scaler lacks scale"):
        ScalerStatistics.from_metadata(content, "m.json")
    with pytest.raises(BundleError, match=r"not the statistics"):
        ScalerStatistics.from_metadata([1], "m.json")


@pytest.mark.parametrize(
    ("scaler", "message"),
    [
        (None, r"scaler is a NoneType"),
        (MinMaxScaler(), r"is a MinMaxScaler"),
        (StandardScaler(), r"never fitted"),
    ],
)
def test_only_a_fitted_standard_scaler_can_be_exported(scaler, message):
    with pytest.raises(BundleError, match=message):
        ScalerStatistics.of(scaler)


def test_limits_are_those_of_the_training_rows():
    constant = ROWS.copy()
    constant[:, 5] = 4.25
    statistics = ScalerStatistics.of(make_scaler(constant))
    low, high = statistics.limits(10.0)
    assert ((constant >= low) & (constant <= high)).all()
    assert high[0] == pytest.approx(constant[:, 0].mean() + 10.0 * constant[:, 0].std())
    assert 4.26 > high[5] > 4.25 > low[5] > 4.24
    assert ScalerStatistics.of(StandardScaler(with_mean=False, with_std=False).fit(ROWS)).limits(10.0) is None


def test_a_difference_is_named():
    statistics = ScalerStatistics.of(make_scaler(ROWS))
    other = ScalerStatistics.of(make_scaler(ROWS + np.eye(200, 20)))
    assert statistics.describe_difference(statistics) is None
    assert statistics.describe_difference(other).startswith("mean[0] is ")
    assert (
        ScalerStatistics.of(make_scaler(ROWS[:, :5])).describe_difference(statistics)
        == "n_features is 5 and 20"
    )
