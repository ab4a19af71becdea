"""Run the fuzz targets, each for some time: `python tools/fuzz/run.py --seconds 60`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main() -> int:
    """Run what the command line names; return 1 where a target found something."""
    names = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target, default 60")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="TARGET", help=", ".join(names)
    )
    parser.add_argument(
        "--corpus", type=Path, help="folder to keep what was learnt in; default a temporary one"
    )
    options = parser.parse_args()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.only:
            corpus = (options.corpus or Path(temporary)) / name
            corpus.mkdir(parents=True, exist_ok=True)
            limits = [
                f"-max_total_time={options.seconds}",
                "-timeout=30",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
            ]
            command = [
                sys.executable,
                str(HERE / f"fuzz_{name}.py"),
                *limits,
                f"-artifact_prefix={Path.cwd()}/",
                corpus,
            ]
            print(f"== {name}", flush=True)
            if subprocess.run(list(map(str, command)), env=environment, check=False).returncode:
                found.append(name)
    print(f"found something in {', '.join(found)}; see {Path.cwd()}" if found else "nothing found")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
