"""Measure seconds and peak memory of loading FMA's tables at their published size, the first and the second time.

    python benchmarks/fma_tables.py [--tracks 106574]

This script makes tables in the published layout: random features, and genres, artists, subsets and splits in about
the published proportions. Each measurement is a separate process. The operating system reports its peak. The peer is
pandas: it reads the two tables as FMA's tools do, and joins them.
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
LABELLED = 49_598 / 106_574  # tracks with a top genre


def write(folder: Path, n_tracks: int) -> None:
    """Write features.csv and tracks.csv, a block of rows at a time."""
    import numpy as np
    import pandas as pd

    sys.path.insert(0, str(ROOT))
    from tests.data.fma_layout import feature_columns

    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(2 * n_tracks, n_tracks, replace=False)) + 2
    artists = rng.integers(0, max(1, n_tracks // 6), n_tracks)
    subset = rng.permutation(np.repeat(["small", "medium", "large"], [8, 17, 82])[np.arange(n_tracks) % 107])
    labelled = (subset != "large") | (rng.random(n_tracks) < (LABELLED - 25 / 107) / (82 / 107))
    genres = np.array([f"Genre {number}" for number in range(16)])
    tracks = pd.DataFrame(
        {
            ("album", "id"): artists * 3 + rng.integers(0, 3, n_tracks),
            ("album", "information"): ['<p>Some lines,\nof "text"</p>' * 5] * n_tracks,
            ("artist", "bio"): ["<p>More lines</p>" * 20] * n_tracks,
            ("artist", "id"): artists,
            ("set", "split"): np.array(["training"] * 8 + ["validation", "test"])[artists % 10],
            ("set", "subset"): subset,
            ("track", "genre_top"): np.where(labelled, genres[rng.integers(0, 16, n_tracks)], None),
            ("track", "title"): "A title",
        },
        index=pd.Index(ids, name="track_id"),
    )
    tracks.to_csv(folder / "tracks.csv")
    columns = feature_columns()
    with (folder / "features.csv").open("w") as stream:
        for start in range(0, n_tracks, 5000):
            index = pd.Index(ids[start : start + 5000], name="track_id")
            block = pd.DataFrame(rng.normal(size=(len(index), 518)).astype(np.float32), index, columns)
            block.to_csv(stream, float_format="%.10e", header=start == 0)


def read_peak_mb() -> float:
    """Return the largest resident size of this process so far, in MB (10^6 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage() also counts the process before exec(), which is a copy of its parent
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure_inside(what: str, folder: str) -> dict[str, float]:
    """Do one measurement in this process."""
    if what == "pandas":
        import pandas as pd

        started = time.perf_counter()
        tracks = pd.read_csv(f"{folder}/tracks.csv", index_col=0, header=[0, 1])
        features = pd.read_csv(f"{folder}/features.csv", index_col=0, header=[0, 1, 2])
        rows = tracks.index[tracks["track", "genre_top"].notna()]
        matrix = features.loc[rows].to_numpy("float32")
        return {"seconds": time.perf_counter() - started, "peak": read_peak_mb(), "rows": len(matrix)}
    from genre_classifier.config.schema import FmaConfig, FmaSubset
    from genre_classifier.data.sources.fma import read

    base = read_peak_mb()
    started = time.perf_counter()
    found = read(FmaConfig(path=folder, subset=FmaSubset[what]))
    return {
        "seconds": time.perf_counter() - started,
        "peak": read_peak_mb(),
        "imports": base,
        "rows": len(found),
    }


def measure(what: str, folder: str) -> dict[str, float]:
    """Do one measurement in a separate process."""
    command = [sys.executable, __file__, "--inside", what, folder]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    values: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tracks", type=int, default=106_574)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print("RESULT " + json.dumps(measure_inside(*arguments.inside)))
        return
    from machine import describe, table

    print(describe(), flush=True)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.tracks)
        megabytes = {path.name: path.stat().st_size / 1e6 for path in Path(folder).iterdir()}
        size = arguments.tracks * 518 * 4 / 1e6
        print(", ".join(f"{name} {value:.0f} MB" for name, value in sorted(megabytes.items())), end="; ")
        print(f"{arguments.tracks} x 518, {size:.0f} MB as float32\n", flush=True)
        for label, what in (
            ("pandas, both tables", "pandas"),
            ("subset=large, the first time", "large"),
            ("subset=large, the second time", "large"),
            ("subset=small, the second time", "small"),
        ):
            values = measure(what, folder)
            lines.append(
                [
                    label,
                    f"{values['rows']:.0f}",
                    f"{values['seconds']:.1f}",
                    f"{values['peak']:.0f}",
                    f"{values['imports']:.0f}" if "imports" in values else "",
                ]
            )
            print(lines[-1], flush=True)
        kept = next(Path(folder).glob("*.parquet")).stat().st_size / 1e6
    print("\n" + table(["what", "rows", "s", "peak MB", "of which imports"], lines))
    print(f"\nkept as Parquet: {kept:.0f} MB")


if __name__ == "__main__":
    main()
