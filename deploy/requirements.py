# ruff: noqa: INP001 -- a script of the image build, no package
"""Print the requirements that an image installs before our wheel: dependencies and some extras of pyproject.toml.

    python requirements.py worker postgres > worker.txt

The layer with torch depends only on this list and constraints.txt. If it depended on pyproject.toml, torch would be
installed again after every change of the version or of a linter's setting. Uses only the standard library, since
nothing is installed yet.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: Iterable[str]) -> Iterator[str]:
    """Requirement specifiers (PEP 508) of the table `[project]` and some of its extras."""
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
