# ruff: noqa: INP001 -- a script of the image build, no package
"""Print what an image installs before our own wheel: the dependencies and the named extras of pyproject.toml.

    python requirements.py worker postgres > worker.txt

The layer that holds torch is built from this list and constraints.txt alone. Copying pyproject.toml instead would
install torch again whenever the version or a linter's setting changes. Standard library only: nothing is installed yet.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: Iterable[str]) -> Iterator[str]:
    """Requirement specifiers (PEP 508) of the table `[project]` with some of its extras."""
    yield from project["dependencies"]
    for extra in extras:
        yield from _of_extra(project, extra)


def _of_extra(project: dict[str, Any], extra: str) -> Iterator[str]:
    known = project["optional-dependencies"]
    if extra not in known:
        raise SystemExit(f"pyproject.toml has no extra {extra!r}. It has: {', '.join(sorted(known))}.")
    for requirement in known[extra]:
        ours = re.fullmatch(rf"{re.escape(project['name'])}\[(.+)\]", requirement)
        if ours is None:
            yield requirement
        else:  # an extra made of extras, such as tagonce[worker,embedded]
            for inner in ours[1].split(","):
                yield from _of_extra(project, inner.strip())


if __name__ == "__main__":
    table = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    sys.stdout.writelines(f"{line}\n" for line in requirements(table, sys.argv[1:]))
