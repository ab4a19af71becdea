from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genre_classifier.bundle.format import BundleDetails
from genre_classifier.bundle.writing import write_bundle
from genre_classifier.cli.main import main
from genre_classifier.errors import BundleError
from tests.example_models import (
    FEATURES,
    GENRES,
    METRICS,
    make_model,
    make_rows,
    make_scaler,
    reference_probabilities,
)

NAME = "genre_classifier_production"
ROWS = make_rows()
SCALER = make_scaler(ROWS)
MODEL = make_model()
EXPECTED = reference_probabilities(MODEL, SCALER, ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "trained_models"
    write_bundle(MODEL, SCALER, GENRES, METRICS, folder, details=BundleDetails(feature_names=FEATURES))
    write_bundle(MODEL, SCALER, GENRES, METRICS, folder, "nameless")
    return folder


def test_verify_tells_what_is_in_a_good_bundle(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert main(["verify"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "Rock, Electronic",
        "20, mfcc_1 to chroma_entropy",
        "test_accuracy 0.81",
        "good",
        "not recorded",
    ):
        assert text in shown


def test_verify_of_a_damaged_bundle_is_one_message_and_exit_code_1(folder, tmp_path, capsys):
    for path in folder.glob(f"{NAME}*"):
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / f"{NAME}.pt").write_bytes(b"damaged")
    assert main(["verify", str(tmp_path / NAME)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {tmp_path / NAME}.pt: SHA-256 is")
    assert "Traceback" not in captured.err
    with pytest.raises(BundleError):
        main(["verify", str(tmp_path / NAME), "--debug"])


def test_one_row_is_answered_as_json(folder, capsys):
    text = ",".join(map(str, ROWS[0]))
    assert main(["predict", "--features", text, "--bundle", str(folder / NAME), "--top-k", "2"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["predicted_index"] == EXPECTED[0].argmax()
    assert len(answer["top_predictions"]) == 2
    assert list(answer["all_probabilities"]) == GENRES


def test_a_row_may_begin_with_a_negative_number(folder, capsys):
    row = [-113.6, *ROWS[0][1:]]
    expected = reference_probabilities(MODEL, SCALER, np.array([row]))
    bundle = str(folder / NAME)
    for arguments in (["--features", ",".join(map(str, row))], [f"--features={','.join(map(str, row))}"]):
        assert main(["predict", *arguments, "--bundle", bundle]) == 0
        assert json.loads(capsys.readouterr().out)["predicted_index"] == expected[0].argmax()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_is_answered_row_by_row_whatever_its_order_of_columns(folder, tmp_path, capsys, suffix):
    table = pd.DataFrame(ROWS[:, ::-1], columns=list(FEATURES[::-1]))
    table.insert(0, "id", [f"track {i}" for i in range(len(ROWS))])
    table["genre"] = "unknown"
    path = tmp_path / f"new{suffix}"
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    assert main(["predict", "--table", str(path), "--bundle", str(folder / NAME)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in rows] == table["id"].tolist()
    assert [GENRES.index(row["genre_1"]) for row in rows] == EXPECTED.argmax(1).tolist()
    assert np.abs(np.array([float(row["confidence_1"]) for row in rows]) - EXPECTED.max(1)).max() < 2e-6


def test_a_bundle_without_names_takes_a_table_of_just_its_features(folder, tmp_path, capsys):
    pd.DataFrame(ROWS).to_csv(tmp_path / "new.csv", index=False)
    assert main(["predict", "--table", str(tmp_path / "new.csv"), "--bundle", str(folder / "nameless")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ROWS) + 1
    pd.DataFrame(ROWS[:, :7]).to_csv(tmp_path / "new.csv", index=False)
    assert main(["predict", "--table", str(tmp_path / "new.csv"), "--bundle", str(folder / "nameless")]) == 1
    assert "7 numeric columns; the bundle takes 20 features" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "1,x"], "value 1 is 'x'; expected numbers separated by commas"),
        (["--features", "1,2"], "expected 20 features, found 2"),
        (["--features", "nan" + ",1" * 19], "feature 0 ('mfcc_1') is nan"),
        (["--features", "1" + ",1" * 19, "--top-k", "9"], "top_k=9: expected 1 to 8"),
        (["--table", "gone.csv"], "gone.csv: there is no such file; check --table"),
    ],
)
def test_what_cannot_be_predicted_is_one_message(folder, capsys, arguments, message):
    assert main(["predict", "--bundle", str(folder / NAME), *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def table_text(separator: str = ",", **cells: str) -> str:
    """Return the rows as text, the third of them with these cells, beside a column that is no feature."""
    table = pd.DataFrame(ROWS, columns=list(FEATURES)).astype(str)
    table.insert(0, "artist", "someone")
    for name, cell in cells.items():
        table.loc[2, name] = cell
    return table.to_csv(index=False, sep=separator, lineterminator="\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("spaced.csv", table_text().replace("\n", " \n").replace(",", " , ")),
        ("tabs.TSV", table_text("\t")),
        ("tabs.txt", table_text("\t")),
        ("mark.csv", "\ufeff" + table_text().replace("\n", "\r\n")),
        ("elsewhere.csv", table_text(artist=" ")),
        ("comma.csv", table_text().replace("\n", ",\n")),
        (
            "index.csv",
            "\n".join(f"{row - 1 if row else ''},{line}" for row, line in enumerate(table_text().split())),
        ),
    ],
)
def test_a_table_to_predict_is_read_as_one_to_train_on(folder, tmp_path, capsys, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert main(["predict", "--table", str(tmp_path / name), "--bundle", str(folder / NAME)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in rows] == [str(row) for row in range(len(ROWS))]
    assert [GENRES.index(row["genre_1"]) for row in rows] == EXPECTED.argmax(1).tolist()


def test_a_bundle_without_names_is_not_given_row_numbers(folder, tmp_path, capsys):
    table = pd.DataFrame(ROWS).rename(columns=str).assign(empty=np.nan)
    table.to_csv(tmp_path / "new.csv")
    table.drop(index=0).to_parquet(tmp_path / "new.pq")
    for name, rows in (("new.csv", len(ROWS)), ("new.pq", len(ROWS) - 1)):
        assert main(["predict", "--table", str(tmp_path / name), "--bundle", str(folder / "nameless")]) == 0
        assert len(capsys.readouterr().out.splitlines()) == rows + 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("short.csv", "id,mfcc_1\n1,2\n", "no column 'mfcc_2' and 18 more (the bundle's 20 features)"),
        ("bad.parquet", "x", "bad.parquet is not a Parquet file"),
        (
            "text.csv",
            table_text(mfcc_2="x"),
            "text.csv, row 4, column 'mfcc_2': 'x' is not a number; correct it",
        ),
        ("blank.csv", table_text(mfcc_2=" "), "blank.csv, row 4, column 'mfcc_2': NaN or an empty cell"),
        ("na.csv", table_text(mfcc_2=" NA"), "na.csv, row 4, column 'mfcc_2': NaN or an empty cell"),
        ("large.csv", table_text(rms="1e300"), "large.csv, row 4, column 'rms': infinity"),
        ("utf16.csv", "\0a\0b", "utf16.csv is not a text file"),
    ],
)
def test_tables_that_do_not_fit_are_one_message(folder, tmp_path, capsys, name, text, message):
    (tmp_path / name).write_text(text)
    assert main(["predict", "--bundle", str(folder / NAME), "--table", str(tmp_path / name)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "data." not in error  # predict has no such settings


def test_a_folder_in_place_of_a_bundle_is_explained(folder, capsys):
    assert main(["verify", str(folder)]) == 1
    assert "is a folder; name the bundle in it" in capsys.readouterr().err


def test_serve_listens_on_the_given_host_and_by_default_on_loopback(folder, monkeypatch):
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")
    for package in ("fastapi", "httptools", "msgspec", "python_multipart"):
        pytest.importorskip(package, reason="needs the extra serve")
    from app.model import model_service

    started = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server: started.append(server.config))
    assert main(["serve"]) == 0
    assert main(["serve", "--host", "0.0.0.0", "--port", "81", "--bundle", str(folder / NAME)]) == 0
    assert [(config.host, config.port) for config in started] == [("127.0.0.1", 8000), ("0.0.0.0", 81)]
    services = [config.app.endpoints.service for config in started]
    assert services[0] is model_service
    assert (services[1].folder, services[1].name) == (folder, NAME)


def test_a_missing_extra_says_the_install_line(capsys, monkeypatch):
    monkeypatch.setattr(
        "genre_classifier.cli.main.find_spec", lambda name: None if name == "uvicorn" else name
    )
    assert main(["serve"]) == 1
    told = capsys.readouterr().err
    assert "serving needs uvicorn, not installed; run in the project's folder: " in told
    assert "pip install -c constraints.txt -e '.[serve]'" in told


def test_help_imports_nothing_heavy():
    code = (
        "import sys, contextlib\nfrom genre_classifier.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['predict', '--help'])\n"
        "assert not {'torch', 'numpy', 'pandas', 'sklearn', 'onnxruntime'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--features V1,V2,..." in done.stdout


def test_only_the_metrics_of_the_judging_split_are_shown() -> None:
    from genre_classifier.cli.main import _format_metrics

    assert _format_metrics({"f1": 0.5, "accuracy": 0.25}) == ["f1 0.5", "accuracy 0.25"]
    by_split = {"train": {"f1": 1.0}, "val": {"f1": 0.5}, "test": {"f1": 0.25}}
    assert _format_metrics(by_split) == ["test f1 0.25"]
    both = by_split | {"synthetic_data": True, "held_out_model": {"run": "x"}}
    assert _format_metrics(both) == ["test f1 0.25", "synthetic data", "of the held-out model"]
