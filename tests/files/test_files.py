"""JSON and YAML that came from somewhere: what they claim about themselves is not believed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from genre_classifier.errors import BundleError, RunFolderError
from genre_classifier.files import documents as files
from genre_classifier.files.documents import parse_json, read_bytes, read_versioned_json, read_yaml

ROOT = Path(__file__).parents[2]

BAD_JSON = {
    "not JSON": (b"{", "cannot be read as JSON"),
    "nothing": (b"", "cannot be read as JSON"),
    "not UTF-8": (b'{"a": "\xff"}', "not UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "a key twice": (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands more than once"),
    "a large whole number": (b'{"a": 1' + b"0" * 400 + b"}", "a whole number of 401 digits"),
    "a negative large whole number": (b"[-1" + b"0" * 400 + b"]", "a whole number of 401 digits"),
    "more digits than Python reads": (b"[1" + b"0" * 5000 + b"]", "a whole number of 5,001 digits"),
    "a large number": (b'{"a": 1e400}', "the number 1e400 is larger than a float holds"),
    "NaN": (b'{"a": NaN}', "holds NaN, which is not JSON"),
    "infinity": (b'{"a": -Infinity}', "holds -Infinity, which is not JSON"),
    "half a surrogate pair": (b'{"a": ["\\ud800"]}', "half a surrogate pair"),
    "half a surrogate pair in a key": (b'{"\\udc00x": 1}', "half a surrogate pair"),
    "deep lists": (b"[" * 60 + b"]" * 60, "nested more than 50 deep"),
    "very deep lists": (b"[" * 100_000 + b"]" * 100_000, "cannot be read as JSON"),
    "very deep objects": (b'{"a":' * 100_000, "cannot be read as JSON"),
    "many values": (b"[" + b"{}," * 1_000_001 + b"1]", "more than 1,000,000 values"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_json_that_is_damaged_or_hostile_is_one_error(name: str) -> None:
    content, message = BAD_JSON[name]
    with pytest.raises(BundleError, match=message) as caught:
        parse_json(content, "some/file.json", BundleError)
    assert "some/file.json" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_json_larger_than_any_of_ours_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(
        RunFolderError, match=r"1,099,511,627,776 bytes, more than any such file \(16,777,216\)"
    ):
        files.read_json(path, RunFolderError)


def test_valid_json_is_read_unchanged() -> None:
    value = {"a": [1, -2.5e-300, "\u00e9\U0001f600", None, True], "": {}, "b": 2**53}
    assert parse_json(json.dumps(value), "x", BundleError) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode(), "x", BundleError) == value
    assert str(parse_json("[NaN, Infinity]", "x", RunFolderError, allow_nan=True)) == "[nan, inf]"


def test_a_repeated_key_among_very_many_is_found_in_linear_time() -> None:
    code = """
from genre_classifier.errors import BundleError
from genre_classifier.files.documents import parse_json
text = "{" + ", ".join(f'"{i}": 0' for i in range(400_000)) + ', "399999": 0}'
try:
    parse_json(text, "x", BundleError)
except BundleError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "the key '399999' stands more than once" in done.stdout


@pytest.mark.parametrize("version", [None, "1", 2, 1.5, True, [1]])
def test_another_version_is_refused(tmp_path: Path, version: object) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"format_version": version}))
    with pytest.raises(RunFolderError, match="format_version is"):
        read_versioned_json(path, 1, kind="run", example="here")


@pytest.mark.parametrize("content", ["[]", "3", '"text"', "null"])
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(RunFolderError, match="format_version is None"):
        read_versioned_json(path, 1, kind="run", example="here")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(RunFolderError, match=r"expected a file, found something else"):
            read_bytes(path, 10, RunFolderError)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none", 10, RunFolderError)


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


BAD_YAML = {
    "aliases": (bomb(20), "anchors or aliases"),
    "an alias to itself": ("a: &a [*a]", "anchors or aliases"),
    "a merged alias": ("a: &a {b: 1}\nc: {<<: *a}", "anchors or aliases"),
    "a tag that makes an object": ("a: !!python/object/apply:os.system [echo]", "the YAML tag"),
    "a tag that makes a path": ("a: !!python/object/apply:pathlib.Path [x]", "the YAML tag"),
    "a local tag": ("a: !thing 1", "the YAML tag"),
    "deep lists": ("[" * 100 + "]" * 100, "nested more than 50 deep"),
    "very deep lists": ("[" * 100_000, "nested more than 50 deep"),
    "very deep blocks": ("- " * 100_000, "nested more than 50 deep"),
    "many values": ("[" + "1," * 30_000 + "]", "more than 20,000 values"),
    "a number of many digits": (f"a: {'9' * 5000}", "a number of 5,000 characters"),
    "a number in base 60": ("a: 1" + ":59" * 50_000, "a number of 150,001 characters"),
    "a key twice": ("a: 1\na: 2", "duplicate key"),
    "no YAML": ("a: [", "cannot be read"),
    "two documents": ("a: 1\n---\nb: 1", "cannot be read"),
    "a list as key": ("[a]: 1", "cannot be read"),
    "half a surrogate pair": ('a: "\\ud800"', "half a surrogate pair"),
    "half a surrogate pair as a key": ('"\\udcff": a', "half a surrogate pair"),
    "a letter beyond Unicode": ('a: "\\Uffffffff"', "cannot be read"),
    "a control character": ("a: \x00", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_yaml_that_is_damaged_or_hostile_is_one_error(tmp_path: Path, name: str) -> None:
    content, message = BAD_YAML[name]
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(RunFolderError, match=message) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)


def test_yaml_larger_than_any_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b" " * (files.MAX_YAML_BYTES + 1))
    with pytest.raises(RunFolderError, match=r"262,145 bytes, more than any such file \(262,144\)"):
        read_yaml(path)
    path.write_bytes(b"a: \xff")
    with pytest.raises(RunFolderError, match="cannot be read"):
        read_yaml(path)


def test_yaml_is_read_as_omegaconf_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: 1e-3\nb: ${a}\nc: [1, 2.5, null, yes, '1', 0x1f, .inf, 2020-01-01]\nd: {}\ne: ???\n")
    assert read_yaml(path) == OmegaConf.to_container(OmegaConf.load(path), resolve=False)


# Where data that came from somewhere becomes values: whatever reads a file calls one of these.
READERS = {
    "json.load",
    "json.loads",
    "json.JSONDecoder",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "torch.load",
    "torch.jit.load",
    "yaml.load",
    "yaml.safe_load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "OmegaConf.load",
    "joblib.load",
    "np.load",
    "numpy.load",
    "pd.read_pickle",
    "pandas.read_pickle",
    "marshal.loads",
    "shelve.open",
    "onnx.load",
    "onnx.load_model",
}


def calls_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def imported_readers_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    } & READERS


def test_files_are_read_in_one_place_only() -> None:
    allowed = {
        "src/genre_classifier/files/documents.py": {"json.loads"},
        # Names what is wrong with a request's body that msgspec has refused; its size is limited before.
        "src/genre_classifier/service/requests.py": {"json.loads"},
        # Copies a configuration: it loads bytes that it has made itself, from no file.
        "src/genre_classifier/sweeps/composing.py": {"pickle.loads"},
    }
    sources = [path for top in ("src", "app") for path in sorted((ROOT / top).rglob("*.py"))]
    assert len(sources) > 100
    found = {}
    for path in sources:
        name = path.relative_to(ROOT).as_posix()
        called = (calls_in(path) & READERS) | imported_readers_in(path)
        if extra := called - allowed.get(name, set()):
            found[name] = extra
    assert found == {}
