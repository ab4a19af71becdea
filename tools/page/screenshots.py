"""Take the pictures of the page that the documentation shows: ``make screenshots``.

Trains and exports the demo's strong recipe, serves it, and drops a medley of the demo's clips on the page in Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from genre_classifier.bundle.format import DEFAULT_NAME

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ROOT / "src" / "genre_classifier" / "demo" / "clips"
COMMAND = (sys.executable, "-m", "genre_classifier.cli.main")
MEDLEY = ("rock", "hip-hop", "hip-hop")
TURN = 27.0  # seconds


def find_chromium() -> str | None:
    """Return the path of Chromium; None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def launch(playwright: Playwright) -> Browser:
    """Start the installed Chromium."""
    # Its sandbox does not work for root, such as in a container.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=find_chromium(), args=arguments)


def make_bundle(folder: Path) -> None:
    """Train the strong recipe on the demo data, and export it."""
    run, quiet = "hydra.run.dir=run", "trainer.enable_progress_bar=false"
    subprocess.run([*COMMAND, "train", "experiment=demo_strong", run, quiet], check=True, cwd=folder)
    subprocess.run([*COMMAND, "export", "run=run", "save_dir=bundle"], check=True, cwd=folder)


def make_medley(path: Path, genres: tuple[str, ...] = MEDLEY) -> Path:
    """Write three of the demo's clips of each genre, one after the other."""
    clips = [soundfile.read(clip) for genre in genres for clip in sorted(CLIPS.glob(f"{genre}-*.ogg"))]
    soundfile.write(path, np.concatenate([samples for samples, _ in clips]), clips[0][1])
    return path


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a bundle with ``genre-classifier serve`` on a free port; yield the address that it prints."""
    bundle = ["--bundle", str(folder / DEFAULT_NAME), "--port", "0"]
    with subprocess.Popen([*COMMAND, "serve", *bundle], stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stderr is not None
            line = next(line for line in service.stderr if line.startswith("open http://"))
            yield line.split()[1]
        finally:
            service.terminate()


def answer(page: Page, address: str, song: Path, seconds: float) -> None:
    """Choose a song, wait for its answer, and move the cursor to a second of it."""
    page.goto(address)
    page.locator("#limits", has_text="MB").wait_for()
    page.set_input_files("#files", song)
    page.locator(".song[data-state=done] .curve").wait_for(timeout=60_000)
    page.locator("audio").evaluate("(audio, time) => { audio.currentTime = time; }", seconds)
    page.wait_for_timeout(500)


def main() -> None:
    """Write page.png, page-dark.png and page-phone.png into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs", help="default docs/")
    parser.add_argument("--bundle", type=Path, help="folder of an exported bundle, default: train one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        bundle = options.bundle or Path(temporary) / "bundle"
        if options.bundle is None:
            make_bundle(Path(temporary))
        song = make_medley(Path(temporary) / "Rock turns into hip-hop.flac")
        browser = launch(playwright)
        with serve(bundle) as address:
            for name, scheme, width, height, top in (
                ("page", "light", 960, 1060, "body"),
                ("page-dark", "dark", 960, 1240, "#about"),
                ("page-phone", "light", 360, 780, ".song"),
            ):
                page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": height})
                answer(page, address, song, TURN)  # twice, since a service's first answer waits for imports
                answer(page, address, song, TURN)
                page.locator(top).evaluate("(part) => scrollTo(0, part.getBoundingClientRect().top - 16)")
                page.screenshot(path=options.folder / f"{name}.png")
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
