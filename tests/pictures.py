"""Make the pictures of docs/images: the review page over the photographs of `make demo`.

    make demo && .venv/bin/python -m tests.pictures

Needs the browser that `python tests/browser.py` finds.
"""

import io
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.browser import NOTED
from tests.fixtures.browser import OPTIONS

FOLDER = Path(__file__).parents[1] / "docs" / "images"
GALLERY = "/?t=0.5&q=cat+~+food+~+vehicle"
"""Some pictures with tags, and a slider that was moved."""
TAG = "animal"
"""Whose page is the second picture."""
SIZE = (1280, 800)
"""Pixels."""
QUALITY = 82
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


def main(database: str) -> None:
    """Serve the page; save the gallery, and the page of `TAG`.

    Raises:
        SystemExit: `tagonce review` has ended without an address; its own message is shown.
    """
    command = [str(Path(sys.executable).with_name("tagonce")), "review", "--port", "0", "--reviewer", "ann"]
    with subprocess.Popen(
        [*command, "--database", database], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            lines = iter(server.stdout or ())
            printed = next((found[0] for line in lines if (found := ADDRESS.search(line))), None)
            if printed is None:
                sys.exit("`tagonce review` has ended without an address.")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=NOTED.read_text(), args=OPTIONS)
                page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light")
                page.goto(f"{printed}{GALLERY}", wait_until="networkidle")
                save(page, FOLDER / "review-gallery.webp")
                page.get_by_role("link", name=TAG, exact=True).first.click()
                page.wait_for_load_state("networkidle")
                save(page, FOLDER / "review-tag.webp")
        finally:
            server.terminate()


def save(page: Page, file: Path) -> None:
    """The part of a page that a window shows, as WebP."""
    with Image.open(io.BytesIO(page.screenshot(animations="disabled"))) as shown:
        shown.save(file, quality=QUALITY, method=6)
    print(f"{file}: {file.stat().st_size:,} bytes")  # noqa: T201  the output of this script


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "sqlite:///demo-out/tags.db")
