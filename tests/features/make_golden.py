"""Write core20_golden.json anew from librosa: python -m tests.features.make_golden"""

from __future__ import annotations

import json
from importlib.metadata import version

from tests.features.reference import DEGENERATE, GOLDEN, MUSICAL, librosa_core20, signal


def main() -> None:
    values = {name: [float(v) for v in librosa_core20(signal(name))] for name in (*MUSICAL, *DEGENERATE)}
    GOLDEN.write_text(json.dumps({"librosa": version("librosa"), "values": values}, indent=1) + "\n")


if __name__ == "__main__":
    main()
