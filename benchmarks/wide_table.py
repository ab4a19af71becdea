"""Measure a table of 100,000 rows and 518 features: seconds to load, to start and per epoch, and peak memory.

    python benchmarks/wide_table.py [--rows 100000] [--features 518]

The table is written as CSV and as Parquet into a temporary folder. Each measurement is a separate process. The
operating system reports its peak. The memory of the imports alone is measured in the same way and shown. The peer is
pandas: read_csv or read_parquet and one conversion to float32.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write(folder: Path, rows: int, features: int) -> None:
    """Write the table, a block of rows at a time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pa_parquet

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(16, features))
    with (folder / "wide.csv").open("wb") as sheet:
        parquet = None
        for start in range(0, rows, 5000):
            genres = rng.integers(0, 16, size=min(5000, rows - start))
            block = (centres[genres] + 3 * rng.normal(size=(len(genres), features))).astype(np.float32)
            columns = {"genre": [f"genre-{genre}" for genre in genres]}
            columns |= {f"f{i}": block[:, i] for i in range(features)}
            batch = pa.table(columns)
            parquet = parquet or pa_parquet.ParquetWriter(folder / "wide.parquet", batch.schema)
            parquet.write_table(batch)
            pa_csv.write_csv(batch, sheet, pa_csv.WriteOptions(include_header=start == 0))
        if parquet is not None:
            parquet.close()


def read_peak_mb() -> float:
    """Return the largest resident size of this process so far, in MB (10^6 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure_inside(what: str, path: str, folder: str) -> dict[str, float]:
    """Do one measurement in this process."""
    if what == "pandas":
        import pandas as pd

        started = time.time()
        frame = pd.read_csv(path) if path.endswith(".csv") else pd.read_parquet(path)
        features = frame.drop(columns="genre").to_numpy("float32")
        return {"load": time.time() - started, "peak": read_peak_mb(), "rows": len(features)}
    from hydra import compose, initialize_config_dir

    from genre_classifier.config.schema import TableConfig, register_schemas
    from genre_classifier.data.sources import read
    from genre_classifier.training import fit

    register_schemas()
    if what == "imports":
        return {"peak": read_peak_mb()}
    if what == "load":
        started = time.time()
        table = read(TableConfig(path=path, label="genre"))
        return {"load": time.time() - started, "peak": read_peak_mb(), "rows": len(table)}
    overrides = ["data=table", f"data.path={path}", "data.label=genre", "logger=none", "trainer.max_epochs=4"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=[*overrides, "data.batch_size=1024", f"run_dir={folder}/run"])
    started = time.time()
    marks: list[float] = []
    original = fit._fit

    def time_fit(*arguments: object) -> None:
        marks.append(time.time())
        original(*arguments)  # type: ignore[arg-type]

    fit._fit = time_fit  # type: ignore[assignment]
    result = fit.train(cfg)
    assert result is not None
    lines = result.folder.history_csv.read_text().splitlines()
    epochs = sorted(float(line.split(",")[-1]) for line in lines[1:])
    return {"start": marks[0] - started, "epoch": epochs[len(epochs) // 2], "peak": read_peak_mb()}


def measure(what: str, path: Path, folder: str) -> dict[str, float]:
    """Do one measurement in a separate process."""
    command = [sys.executable, __file__, "--inside", what, str(path), folder]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    values: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=518)
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print("RESULT " + json.dumps(measure_inside(*arguments.inside)))
        return
    from machine import describe, table

    size = arguments.rows * arguments.features * 4 / 1e6
    print(describe())
    print(f"{arguments.rows} x {arguments.features}, {size:.0f} MB as float32\n")
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.rows, arguments.features)
        imports = measure("imports", Path(), folder)["peak"]
        for name in ("wide.csv", "wide.parquet"):
            path = Path(folder) / name
            megabytes = path.stat().st_size / 1e6
            for what in ("pandas", "load", "train"):
                values = measure(what, path, folder)
                base = imports if what != "pandas" else 0.0
                lines.append(
                    [
                        f"{name} ({megabytes:.0f} MB)",
                        {"pandas": "pandas to float32", "load": "read", "train": "read, split, scale, train"}[
                            what
                        ],
                        *(
                            f"{values[key]:.1f}" if key in values else ""
                            for key in ("load", "start", "epoch")
                        ),
                        f"{values['peak']:.0f}",
                        f"{values['peak'] / size:.1f}",
                        f"{(values['peak'] - base) / size:.1f}" if base else "",
                    ]
                )
                print(lines[-1], flush=True)
    header = ["file", "what", "load s", "start s", "epoch s", "peak MB", "peak / table", "without imports"]
    print("\n" + table(header, lines))
    print(f"\nimports alone: {imports:.0f} MB")


if __name__ == "__main__":
    main()
