"""Documents, docstrings, comments and messages are plain technical English: none of the words of tests/prose.py."""

from pathlib import Path

import pytest

from tests import prose

WRONG_DOCUMENT = """# What to keep

What is stored there is never deleted. What happens then? It stands for a tag.
A chunk in
work is told so: `nobody` knows.

- What was moved changes the profile.

```
nobody reads this
```
"""
WRONG_CODE = '''"""Nobody gets it."""
somebody = 1  # is not text, but this comment stands
# brought
# forward
'''


def test_no_word_to_avoid() -> None:
    found = prose.findings()
    assert not found, "\n" + "\n".join(map(str, found))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings are named from the folder of the test on."""
    if request.function is not test_no_word_to_avoid:
        monkeypatch.setattr(prose, "ROOT", tmp_path)


def test_a_document_is_searched_without_its_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(WRONG_DOCUMENT, encoding="utf-8")
    assert sorted((one.line, one.word) for one in prose.in_document(page)) == [
        (3, "What is stored there is never deleted."),
        (4, "in work"),
        (5, "told"),
        (7, "- What was moved changes the profile."),
    ]


def test_code_is_searched_in_strings_and_comments(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(WRONG_CODE, encoding="utf-8")
    first, second = prose.in_code(module)
    assert str(first).startswith("module.py:1: Nobody → ")
    assert str(second) == "module.py:2: stands → is"
