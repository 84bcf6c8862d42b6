"""The documents of the repository, and the tables in them that are generated from the code.

    python -m tests.documents

regenerates these tables; tests/unit/test_readme.py and tests/unit/test_structure.py compare them.
"""

import ast
from collections.abc import Iterable
from pathlib import Path

from tagonce.settings import Settings

ROOT = Path(__file__).parents[1]
PACKAGES = ("db", "producer", "workers", "tagonce")
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "deploy" / "README.md",
)
SETTINGS = "| variable | default | meaning |\n|---|---|---|\n"
FOLDERS = "| folder | holds |\n|---|---|\n"


def settings_table() -> str:
    """The rows of docs/settings.md, one per field of `Settings`."""
    return _rows(
        (f"`TAGONCE_{name.upper()}`", "" if field.default is None else f"`{field.default}`", field.description or "")
        for name, field in Settings.model_fields.items()
    )


def folders_table() -> str:
    """The rows of docs/design.md: each folder of a package, and the first line of its docstring."""
    return _rows((f"`{folder.relative_to(ROOT)}/`", sentence(folder)) for folder in folders())


def folders() -> list[Path]:
    """All folders of the packages that hold Python files, in order of their names, the packages from bottom to top."""
    return [
        folder for package in PACKAGES for folder in sorted({file.parent for file in (ROOT / package).rglob("*.py")})
    ]


def sentence(folder: Path) -> str:
    """The first line of the docstring of a folder's `__init__.py`; empty where there is none."""
    file = folder / "__init__.py"
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file.is_file() else None
    return (docstring or "").partition("\n")[0]


def with_table(text: str, head: str, table: str) -> str:
    """A document with other rows below a head.

    Raises:
        ValueError: the document does not have the head exactly once.
    """
    before, *after = text.split(head)
    if len(after) != 1:
        raise ValueError(f"expected one table that begins with {head!r}, found {len(after)}")
    return before + head + table + after[0][len(table_below(text, head)) :]


def table_below(text: str, head: str) -> str:
    """The rows below a head, as they are in a document."""
    rows = []
    for line in text.partition(head)[2].splitlines(keepends=True):
        if not line.startswith("|"):
            break
        rows.append(line)
    return "".join(rows)


def _rows(cells: Iterable[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


if __name__ == "__main__":
    for name, head, table in (("settings", SETTINGS, settings_table()), ("design", FOLDERS, folders_table())):
        page = ROOT / "docs" / f"{name}.md"
        page.write_text(with_table(page.read_text(encoding="utf-8"), head, table), encoding="utf-8")
