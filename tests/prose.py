"""Words to avoid in documents, docstrings, comments and messages, each with a plain one.

    python -m tests.prose [FOLDER ...]

prints the findings in the documents and the folders, and how often each word occurs. Without a folder it checks what
tests/unit/test_prose.py checks.
"""

import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.documents import DOCUMENTS, FOLDERS, ROOT, SETTINGS, table_below

ROOTS: tuple[str, ...] = ("db", "producer", "workers", "tagonce")
"""Folders whose code is checked, beside the documents."""

TEXTS = (
    *DOCUMENTS,
    ROOT / "tests" / "fixtures" / "databases" / "README.md",
    ROOT / "deploy" / "Dockerfile",
    ROOT / "deploy" / "env.example",
    *sorted((ROOT / "deploy").rglob("*.yaml")),
)
"""CHANGELOG.md is not among them: it is history, and old entries stay as they are."""

PLAIN = {
    r"in work": "being processed, running",
    r"told": "given, set, configured, distinguished",
    r"nobody|somebody|whoever": "no one else, a user, another process, anyone who; or name the role",
    r"(?:leave|leaves|leaving|left) away": "omit, leave out",
    r"to be had": "available",
    r"(?:bring|brings|bringing|brought)\b[^.:;\n]{0,40}?\bforward": "upgrade",
    r"stands?(?! (?:for|in for|out)\b)": "is",
    r"so-manieth": "rank, position",
}
"""Regular expressions of words to avoid, and what to write."""

CLAUSE = r"(?:^|(?<=[.!;:|] ))(?:[-*] |\d+\. )?What (?!if\b)[^?|]*?(?:[.|]|$)"
"""A sentence that begins with a clause as its subject. Documents only: in a docstring `What ...` may be a title."""
CLAUSE_HINT = "put the subject first: a noun, then the verb"

FENCE = re.compile(r"^\s*```.*?^\s*```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]*`")


@dataclass(frozen=True, slots=True)
class Finding:
    """A word to avoid, at its place."""

    file: Path
    line: int
    """From 1."""
    word: str
    plain: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.word} → {self.plain}"


def findings(roots: Iterable[str] = ROOTS) -> list[Finding]:
    """All of them, in the documents and in the code of some folders.

    Args:
        roots: folders, relative to the repository.
    """
    found = [one for file in TEXTS for one in in_document(file)]
    for root in roots:
        for file in sorted((ROOT / root).rglob("*")):
            if file.suffix in {".py", ".html", ".js"}:
                found += in_code(file)
    return found


def in_document(file: Path) -> Iterator[Finding]:
    """In the prose of a file. In Markdown, code and generated tables are passed over: the code is their source."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        for head in (SETTINGS, FOLDERS):
            if rows := table_below(text, head):
                text = text.replace(rows, "\n" * rows.count("\n"))
        text = CODE.sub(_blank, FENCE.sub(_blank, text))
        yield from _search(file, text, {CLAUSE: CLAUSE_HINT}, re.MULTILINE)
    yield from words_in(file, text)


def in_code(file: Path) -> Iterator[Finding]:
    """In the strings and comments of a Python file; in all of a template or a script."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield from words_in(file, text)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or tokenize.tok_name[token.type] in {"STRING", "FSTRING_MIDDLE"}:
            yield from words_in(file, token.string, token.start[0])


def words_in(file: Path, text: str, first_line: int = 1) -> Iterator[Finding]:
    """Of `PLAIN`. A line break counts as a space."""
    spelled = {rf"\b(?:{words})\b".replace(" ", r"\s+(?:#\s+)?"): plain for words, plain in PLAIN.items()}
    return _search(file, text, spelled, re.IGNORECASE, first_line)


def _search(file: Path, text: str, patterns: dict[str, str], flags: int, first_line: int = 1) -> Iterator[Finding]:
    for pattern, plain in patterns.items():
        for match in re.finditer(pattern, text, flags):
            line = first_line + text.count("\n", 0, match.start())
            yield Finding(file, line, " ".join(match[0].split()), plain, pattern)


def _blank(match: re.Match[str]) -> str:
    """As many lines and columns, without words."""
    return re.sub(r"[^\n]", "·", match[0])


if __name__ == "__main__":
    found = findings(sys.argv[1:] or ROOTS)
    for one in found:
        print(one)  # noqa: T201  the output of this script
    for plain, times in Counter(one.plain for one in found).most_common():
        print(f"{times:5}  {plain}")  # noqa: T201
    sys.exit(bool(found))
