"""Files of torch.save read without torch: equal to torch's own reading, and refusing what claims more than it holds."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genre_classifier.errors import BundleError
from genre_classifier.files.torch_file import StoredTensor, check_plain, load_torch_file, read_torch_file
from genre_classifier.network import GenreClassifier

Records = dict[str, bytes]


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def same(mine: Any, theirs: Any) -> bool:
    if isinstance(theirs, torch.Tensor):
        return mine.dtype == theirs.dtype and mine.shape == theirs.shape and torch.equal(mine, theirs)
    if isinstance(theirs, dict):
        return list(mine) == list(theirs) and all(same(mine[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list | tuple):
        return type(mine) is type(theirs) and len(mine) == len(theirs) and all(map(same, mine, theirs))
    return bool(mine == theirs) and type(mine) is type(theirs)


def trained_state() -> dict[str, Any]:
    model = GenreClassifier()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(3, 20)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "config": model.get_config(), "optimizer": optimizer.state_dict()}


KINDS = ("float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
SHARED = torch.arange(4.0)
VALUES: dict[str, Any] = {
    "a trained model": trained_state(),
    "plain values": {"a": [1, -(2**62), 1.5, float("inf"), None, True], "b": ("x", "é" * 300), 3: {}},
    "every kind": {kind: torch.arange(6).to(getattr(torch, kind)).reshape(2, 3) for kind in KINDS},
    "no numbers": [torch.zeros(0), torch.zeros(0, 5), torch.tensor(3.5)],
    "views": [torch.arange(12.0).reshape(3, 4).t(), torch.arange(12.0)[3:7], torch.arange(12.0)[::2]],
    "shared": {"a": SHARED, "b": SHARED, "c": SHARED[1:]},
    "a parameter": nn.Parameter(torch.ones(3)),
    "an ordered mapping": OrderedDict(a=1, b=torch.ones(2)),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_file_is_read_as_torch_reads_it(name: str) -> None:
    content = saved(VALUES[name])
    expected = torch.load(io.BytesIO(content), weights_only=True)
    expected = dict(expected) if isinstance(expected, OrderedDict) else expected
    found = load_torch_file(content, "x.pt", BundleError)
    assert same(found, expected) or (isinstance(expected, nn.Parameter) and torch.equal(found, expected.data))


def test_a_counter_is_read_as_one() -> None:
    found = load_torch_file(saved({"milestones": Counter([3, 5, 5])}), "x", BundleError)
    assert found == {"milestones": Counter({5: 2, 3: 1})}
    assert found["milestones"][7] == 0


def test_bfloat16_is_read_exactly_without_torch() -> None:
    values = torch.randn(1000).bfloat16()
    found = read_torch_file(saved(values), "x", BundleError)
    assert isinstance(found, StoredTensor)
    np.testing.assert_array_equal(found.to_numpy(), values.float().numpy())


def test_tensors_of_a_file_belong_to_the_reader() -> None:
    found = load_torch_file(saved({"a": torch.zeros(3)}), "x", BundleError)
    found["a"].add_(1.0)
    assert found["a"].tolist() == [1.0, 1.0, 1.0]


class Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def repacked(
    content: bytes, change: Callable[[Records], Records], compression: int = zipfile.ZIP_STORED
) -> bytes:
    """Return an archive with its records changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, record in change(records).items():
            archive.writestr(name, record)
    return buffer.getvalue()


def with_pickle(data: bytes) -> bytes:
    return repacked(saved({"a": torch.zeros(4)}), lambda records: records | {"archive/data.pkl": data})


def edited(before: bytes, after: bytes) -> bytes:
    """Return a file of four float32 with bytes of its pickle replaced."""

    def change(records: Records) -> Records:
        data = records["archive/data.pkl"]
        assert data.count(before) >= 1
        return records | {"archive/data.pkl": data.replace(before, after)}

    return repacked(saved({"a": torch.zeros(4)}), change)


def doubled(levels: int) -> bytes:
    """Return a pickle of pairs, each of which holds the one before it twice: 2 ** levels values, were they copied."""
    data = b"\x80\x02]"
    for number in range(levels):
        data += b"q" + bytes([number]) + b"h" + bytes([number]) + b"\x86"
    return data + b"."


def colliding(count: int) -> bytes:
    """Return a pickle of a mapping whose keys all have the hash 0, which takes hours to make."""
    numbers = ((number * (2**61 - 1)).to_bytes(11, "little") for number in range(count))
    return b"\x80\x02}(" + b"".join(b"\x8a\x0b" + number + b"N" for number in numbers) + b"u."


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a call": (saved({"a": Runs(print, "it ran")}), r"asks for __builtin__\.print"),
    "a whole model": (saved(GenreClassifier()), r"asks for genre_classifier\.network\.GenreClassifier"),
    "an expanded tensor": (
        saved(torch.zeros(1).expand(10**9)),
        r"shape \(1000000000,\), where the file has 1 ",
    ),
    "an expanded matrix": (
        saved(torch.zeros(3).expand(1000, 3)),
        r"shape \(1000, 3\), where the file has 3 ",
    ),
    "a sparse tensor": (saved(torch.eye(3).to_sparse()), r"asks for torch\._utils\._rebuild_sparse_tensor"),
    "a meta tensor": (saved(torch.zeros(10**6, device="meta")), r"asks for torch"),
    "complex numbers": (saved(torch.zeros(3, dtype=torch.complex64)), r"asks for torch\.ComplexFloatStorage"),
    "a type": (saved({"a": torch.float32}), r"asks for torch\.float32"),
    "a size": (saved({"a": torch.Size([3])}), r"asks for torch\.Size"),
    "bytes": (saved({"a": b"xyz"}), r"asks for _codecs\.encode"),
    "a set": (saved({"a": {1}}), r"asks for __builtin__\.set"),
    "a large whole number": (saved({"a": 2**70}), r"a whole number that 64 bits do not hold"),
    "a key that is hashed for ever": (
        with_pickle(b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns."),
        r"tuple for a key",
    ),
    "keys of one hash": (with_pickle(colliding(100_000)), r"a whole number that 64 bits do not hold"),
    "values that double": (with_pickle(doubled(40)), r"more than 500,000 values"),
    "deep": (with_pickle(b"\x80\x02)" + b"\x85" * 100 + b"."), r"nested more than 50 deep"),
    "a value in itself": (with_pickle(b"\x80\x02]q\x00h\x00a."), r"nested more than 50 deep"),
    "a longer shape": (edited(b"K\x00K\x04\x85", b"K\x00K\x08\x85"), r"shape \(8,\), where the file has 4 "),
    "a later start": (edited(b"K\x00K\x04\x85", b"K\x01K\x04\x85"), r"shape \(4,\), where the file has 4 "),
    "a wider step": (edited(b"K\x01\x85", b"K\x02\x85"), r"shape \(4,\), where the file has 4 "),
    "a negative shape": (edited(b"K\x04\x85", b"J\xff\xff\xff\xff\x85"), r"not made of whole numbers"),
    "another storage": (
        edited(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x007"),
        r"whose storage is not in the file",
    ),
    "compressed": (
        repacked(saved({"a": torch.zeros(10**6)}), lambda records: records, zipfile.ZIP_DEFLATED),
        r"compressed records",
    ),
    "too few bytes": (
        repacked(saved(torch.zeros(4)), lambda records: records | {"archive/data/0": b"1234"}),
        r"a tensor of 4 numbers, where the file has 4 bytes for them",
    ),
    "truth that is neither": (
        repacked(saved(torch.tensor([True])), lambda records: records | {"archive/data/0": b"\x02"}),
        r"neither true nor false",
    ),
    "no pickle": (
        repacked(saved(1), lambda records: {n: c for n, c in records.items() if not n.endswith(".pkl")}),
        r"no data\.pkl",
    ),
    "two pickles": (
        repacked(saved(1), lambda records: records | {"other/data.pkl": records["archive/data.pkl"]}),
        r"no data\.pkl",
    ),
    "another byte order": (
        repacked(saved(1), lambda records: records | {"archive/byteorder": b"big"}),
        r"in another order",
    ),
    "no zip": (b"PK nothing", r"does not end as a zip does"),
    "nothing": (b"", r"does not end as a zip does"),
    "the format of before 2020": (saved([1], _use_new_zipfile_serialization=False), r"does not end as a zip"),
    "a pickle": (pickle.dumps([1]), r"does not end as a zip does"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_asks_for_more_is_refused(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    content, message = HOSTILE[name]
    with pytest.raises(BundleError, match=message) as caught:
        read_torch_file(content, "some.pt", BundleError)
    assert str(caught.value).startswith("some.pt: ")
    assert len(str(caught.value)) < 300
    assert "it ran" not in capfd.readouterr().out


def test_two_records_of_one_name_are_refused() -> None:
    buffer = io.BytesIO(saved([1]))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02K\x02.")
    with pytest.raises(BundleError, match="two records of the same name"):
        read_torch_file(buffer.getvalue(), "x", BundleError)


def test_a_table_of_contents_that_is_too_large_is_refused_unread() -> None:
    content = bytearray(saved([1]))
    struct.pack_into("<L", content, len(content) - 22 + 12, 2**31)
    with pytest.raises(BundleError, match="table of contents is larger"):
        read_torch_file(bytes(content), "x", BundleError)


def test_many_tensors_of_the_same_numbers_do_not_take_any_memory() -> None:
    row = torch.zeros(250_000)
    with pytest.raises(BundleError, match="many times the bytes that the file has"):
        read_torch_file(saved([row[i:] for i in range(40)]), "x", BundleError)


BOMBS = """
import resource, sys
import torch
from pathlib import Path
from genre_classifier.bundle.format import Bundle, build_model, make_predictor
from genre_classifier.errors import GenreClassifierError
from genre_classifier.network import GenreClassifier
from genre_classifier.data.scaler_state import ScalerStatistics
from genre_classifier.training.lit_module import GenreLitModule

folder = Path(sys.argv[1])
content = torch.load(folder / "good.ckpt", weights_only=True)
settings = content["hyper_parameters"]
network = dict(settings["network"])
config = {key: value for key, value in network.items() if key != "_target_"}
state = {key.removeprefix("network."): value for key, value in content["state_dict"].items()}
scaler = ScalerStatistics.from_metadata(settings["scaler"], "x")
genres = tuple(settings["genre_names"])
wide = torch.ones(1, dtype=torch.int64).expand(10**7)
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))

def tried(name, act):
    try:
        act()
        print(name, "passed")
    except GenreClassifierError as error:
        print(name, "refused", str(error)[:200].replace("\\n", " "))

def checkpoint(name, *, of_settings=None, **changes):
    changed = content | changes
    if of_settings is not None:
        changed["hyper_parameters"] = settings | of_settings
    torch.save(changed, folder / "bad.ckpt")
    tried(name, lambda: GenreLitModule.load(folder / "bad.ckpt"))

def bundle(name, **changes):
    torch.save({"model_state_dict": state, "model_config": config | changes}, folder / "b.pt")
    made = Bundle("b", folder, "", {}, genres, None, scaler, (folder / "b.pt").read_bytes(), None)
    tried(name, lambda: build_model(made, GenreClassifier))
    tried(name, lambda: make_predictor(made))

bundle("untouched")
bundle("expanded", hidden_dims=wide)
bundle("tensor", hidden_dims=torch.ones(1000, dtype=torch.int64))
bundle("layers", hidden_dims=[1] * 200_000)
bundle("width", hidden_dims=[10**9, 10**9])
bundle("digits", hidden_dims=[10**400])
bundle("nan", dropout=float("nan"))
bundle("text", hidden_dims="x" * 10**6)
bundle("mapping", hidden_dims={str(i): i for i in range(10**5)})
checkpoint("untouched")
checkpoint("width", of_settings={"network": network | {"hidden_dims": [10**9, 10**9]}})
checkpoint("layers", of_settings={"network": network | {"hidden_dims": [1] * 100_000}})
checkpoint("tensor", of_settings={"network": network | {"hidden_dims": wide}})
checkpoint("genres", of_settings={"genre_names": 5})
checkpoint("genres tensor", of_settings={"genre_names": wide})
checkpoint("class weights", of_settings={"class_weights": wide})
checkpoint("class weights type", of_settings={"class_weights": 10**12})
checkpoint("scaler", of_settings={"scaler": settings["scaler"] | {"n_features": 10**12}})
checkpoint("seed", of_settings={"seed": None})
checkpoint("more", of_settings={"more": 1})
checkpoint("version", genre_classifier_format_version=torch.ones(2))
checkpoint("loops", loops="x")
checkpoint("loops tensor", loops={"fit_loop": torch.ones(2)})
checkpoint("callbacks", callbacks=[])
checkpoint("a callback", callbacks={"History": torch.ones(2)})
checkpoint("own settings", genre_classifier_settings={"data.split.seed": torch.ones(2)})
checkpoint("epoch", epoch=-1)
checkpoint("epoch text", epoch="1")
checkpoint("short weights", state_dict={key: value[:1] for key, value in content["state_dict"].items()})
checkpoint("no weights", state_dict={})
checkpoint("weights type", state_dict=[1])
checkpoint("weights text", state_dict=content["state_dict"] | {"network.network.0.weight": "x"})
checkpoint("settings", hyper_parameters=[1])
"""


def test_sizes_in_bundles_and_checkpoints_are_not_trusted(tmp_path: Path, trained: Any) -> None:
    copyfile(trained(name="good").folder.best_checkpoint, tmp_path / "good.ckpt")
    words = [sys.executable, "-c", BOMBS, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * 9 + 24
    assert [line for line in lines if " refused " not in line] == ["untouched passed"] * 3


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(saved({"a": torch.arange(4.0), "b": [1, "x"]}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BundleError):
        load_torch_file(bytes(content), "x", BundleError)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "has the number nan"),
        ([[float("-inf")]], "has the number -inf"),
        ({"a": {1, 2}}, "has a set in it"),
        ({"a": np.ones(3)}, "has a ndarray in it"),
        ([0] * 2000, "has more than 1,000 values"),
        ([[0] * 600, [0] * 600], "has more than 1,000 values"),
    ],
)
def test_settings_are_few_built_in_values(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"settings {message}"):
        check_plain(value, "settings")
    check_plain({"a": [1, 2.5, "x", None, True], "b": (1, {"c": 3})}, "settings")
