"""The report as a browser shows it, on a desk and on a phone. Needs Chromium or Chrome."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESK, PHONE = 1100, 390
HEIGHT = 2400

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="none of chromium, chromium-browser and google-chrome is installed"
)


def browse(folder: Path, page: Path, *options: str) -> str:
    """Run the browser on a page and return what it prints."""
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=5000",
        *options,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_a_screenshot_is_not_blank(pages: dict[str, Path], tmp_path: Path, width: int) -> None:
    picture = tmp_path / "page.png"

    browse(tmp_path, pages["run"], f"--screenshot={picture}", f"--window-size={width},{HEIGHT}")

    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (HEIGHT, width, 3)
    dark = pixels.sum(axis=2) < 3 * 110
    assert 0.005 < dark.mean() < 0.3  # letters and lines
    coloured = np.ptp(pixels, axis=2) > 60
    assert coloured[: HEIGHT // 3].any()  # the headline's intervals
    assert coloured[HEIGHT // 3 :].any()  # the figures
    blocks = dark.reshape(8, HEIGHT // 8, width).any(axis=(1, 2))
    assert blocks.all(), "a part of the page is empty"


def test_nothing_is_wider_than_the_page(pages: dict[str, Path], tmp_path: Path) -> None:
    frames = {
        f"{name}-{width}": f'<iframe id="{name}-{width}" src="{page.as_uri()}" width="{width}"></iframe>'
        for name, page in pages.items()
        if name != "failed"
        for width in (DESK, PHONE)
    }
    measure = """
    <script>
    addEventListener("load", () => {
      for (const frame of document.querySelectorAll("iframe")) {
        const page = frame.contentDocument.documentElement;
        const line = document.createElement("p");
        line.textContent = `${frame.id}: ${page.scrollWidth} of ${page.clientWidth}, ${page.scrollHeight} high;`;
        document.body.append(line);
      }
    });
    </script>"""
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(f"<!DOCTYPE html><body>{''.join(frames.values())}{measure}</body>")

    dumped = browse(tmp_path, wrapper, "--dump-dom", f"--window-size={DESK + 100},1000")

    found = re.findall(r"(\w+-\d+): (\d+) of (\d+), (\d+) high;", dumped)
    assert {name for name, *_ in found} == set(frames)
    for name, wide, room, high in found:
        assert int(wide) <= int(room), name
        assert int(high) > 1000, name


def test_the_page_can_be_printed(pages: dict[str, Path], tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"

    browse(tmp_path, pages["run"], f"--print-to-pdf={paper}")

    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 15
