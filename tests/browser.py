"""Find a Chromium for the tests of the page, or fetch one: `make test` runs this before the suite.

In this order: $TAGONCE_TEST_BROWSER; one that is there; Debian's package, installed by root or unpacked into
`build/browser` by anybody else; what Playwright downloads. The path of the first that starts is noted in the virtual
environment, where `tests.fixtures.browser` reads it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

VARIABLE = "TAGONCE_TEST_BROWSER"
POLL_SECONDS = 2.0
NOTED = Path(sys.prefix) / ".browser"
NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core")
"""The browser without windows needs two thirds of the packages; without a font it shows no text."""
LOCK_SECONDS = 600
APT = ("apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}")
"""Waits while somebody else installs something; by default it gives up at once."""
UNPACKED = Path(__file__).parents[1] / "build" / "browser"
WRAPPER = UNPACKED / "chromium"
SCRIPT = """#!/bin/sh
export LD_LIBRARY_PATH='{libraries}' FONTCONFIG_FILE='{fonts}'
exec '{browser}' "$@"
"""
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{root}/usr/share/fonts</dir><cachedir>{root}/cache</cachedir></fontconfig>
"""
HELP = f"""No Chromium was found, and none could be installed; why is said above. The tests of the page need one:
  Debian:  apt-get install chromium
  others:  install Chromium or Google Chrome, or run: {sys.executable} -m playwright install --with-deps chromium
One that is not on the PATH is named by {VARIABLE}=/path/to/chrome."""


def starts(browser: str) -> bool:
    """It shows a page: a name on the PATH may be a stub of a package that is not there."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "data:text/html,shown")
    try:
        done = subprocess.run([browser, *options], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"shown" in done.stdout


def at_hand() -> Iterator[str]:
    yield from (found for name in (*NAMES, str(WRAPPER)) if (found := shutil.which(name)))


def of_debian() -> Iterator[str]:
    """Debian's package. Where there is no apt-get, or no such package (Ubuntu), nothing."""
    if not shutil.which("apt-get"):
        return
    if os.geteuid() == 0:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        update(APT)
        install = [*APT, "install", "-y", "--no-install-recommends", *PACKAGES]
        subprocess.run(install, env=environment, check=False)
        yield from at_hand()
    elif download():
        wrap()
        yield str(WRAPPER)


def update(apt: Sequence[str]) -> None:
    """Fetch the lists of packages. One of many that fails harms nobody; while somebody else does it, apt-get gives up
    at once, whatever it is told, and is asked again.
    """
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        done = subprocess.run(
            [*apt, "update"], env=os.environ | {"LC_ALL": "C"}, stderr=subprocess.PIPE, text=True, check=False
        )
        if "Could not get lock" not in done.stderr or time.monotonic() > give_up:
            sys.stderr.write(done.stderr)
            return
        time.sleep(POLL_SECONDS)


def download() -> bool:
    """Unpack the packages, with all that they need and this machine lacks, into `UNPACKED`. Needs no root."""
    shutil.rmtree(UNPACKED, ignore_errors=True)
    with tempfile.TemporaryDirectory() as state:
        folders = {"State": state, "State::lists": f"{state}/lists", "Cache": state, "Cache::archives": f"{state}/debs"}
        for name in ("lists", "debs"):
            (Path(state) / name / "partial").mkdir(parents=True)
        options = [f"Dir::{name}={folder}" for name, folder in folders.items()]
        options += ["Dir::State::status=/var/lib/dpkg/status", "Debug::NoLocking=true"]
        apt = [*APT, *(word for option in options for word in ("-o", option))]
        update(apt)
        install = ["install", "-y", "--download-only", "--no-install-recommends", *PACKAGES]
        if subprocess.run([*apt, *install], check=False).returncode != 0:
            return False
        UNPACKED.mkdir(parents=True)
        packages = (Path(state) / "debs").glob("*.deb")
        return all(subprocess.run(["dpkg-deb", "-x", each, UNPACKED], check=False).returncode == 0 for each in packages)


def wrap() -> None:
    """Write the script that starts what `download` unpacked, with its libraries and fonts."""
    libraries = sorted({str(file.parent) for file in UNPACKED.rglob("lib*.so*")})
    browser, fonts = UNPACKED / "usr" / "lib" / "chromium" / PACKAGES[0], UNPACKED / "fonts.conf"
    fonts.write_text(FONTS.format(root=UNPACKED))
    WRAPPER.write_text(SCRIPT.format(libraries=":".join(libraries), fonts=fonts, browser=browser))
    WRAPPER.chmod(0o755)


def of_playwright() -> Iterator[str]:
    """What Playwright downloads into its cache, some 170 MB; nothing is downloaded twice."""
    install = [sys.executable, "-m", "playwright", "install", "--no-shell", "chromium"]
    if subprocess.run(install, check=False).returncode != 0:
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.executable_path


def find() -> str:
    """The path of a browser that starts.

    Raises:
        SystemExit: there is none, with a text for people.
    """
    if named := os.environ.get(VARIABLE):
        if starts(named):
            return named
        sys.exit(f"{VARIABLE}={named} does not start, or shows no page. Name another one, or unset it.")
    ways: tuple[Callable[[], Iterator[str]], ...] = (at_hand, of_debian, of_playwright)
    for browser in (browser for way in ways for browser in way()):
        if starts(browser):
            return browser
    sys.exit(HELP)


if __name__ == "__main__":
    noted = NOTED.read_text().strip() if NOTED.exists() else ""
    if os.environ.get(VARIABLE) or not Path(noted).is_file():
        NOTED.write_text(find())
