"""A Chromium is installed also while somebody else installs something."""

import os
import sys
from pathlib import Path

import pytest

from tests import browser

APT_GET = """#!{python}
import pathlib, sys
log = pathlib.Path({log!r})
log.open("a").write(" ".join(sys.argv[1:]) + "\\n")
if len(log.read_text().splitlines()) < 3:
    sys.exit("E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)")
"""


def test_apt_get_waits_for_the_lock_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """apt-get itself waits for dpkg's lock, where it is told to, and never for that of the lists."""
    log, fake = tmp_path / "log", tmp_path / "apt-get"
    fake.write_text(APT_GET.format(python=sys.executable, log=str(log)))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(browser, "POLL_SECONDS", 0)
    monkeypatch.setattr(browser, "at_hand", lambda: iter(["/chromium"]))
    assert list(browser.of_debian()) == ["/chromium"]
    *updates, install = log.read_text().splitlines()
    assert len(updates) == 3
    assert all(line.endswith(" update") for line in updates)
    assert " install " in install
    assert "-o DPkg::Lock::Timeout=600" in install
