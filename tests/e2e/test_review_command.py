"""`tagonce review` as a command: how it starts, what it says when it cannot, how it ends."""

import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.command import Outcome, Process

TOKEN = "sixteen-characters-and-more"  # noqa: S105


def address(process: Process) -> str:
    process.wait_for("Open http")
    found = re.search(r"Open (\S+)", process.words())
    assert found
    return found[1]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end(
    start_tagonce: Callable[..., Process], stored: Path, ending: signal.Signals
) -> None:
    process = start_tagonce("review", "--port", "0", "--query", "solo", XDG_CACHE_HOME=str(stored.parent))
    url = address(process)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?sample=search&q=solo", url)
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - our own
        assert "No picture" in answer.read().decode()
    process.signal(ending)
    assert process.wait() in (0, -ending)
    assert "Traceback" not in process.words()


def test_on_another_address_it_wants_a_token(start_tagonce: Callable[..., Process], stored: Path) -> None:
    cache = str(stored.parent)
    process = start_tagonce("review", "--port", "0", "--host", "0.0.0.0", XDG_CACHE_HOME=cache)  # noqa: S104
    url = address(process)
    port = re.search(r":(\d+)/", url)
    assert port
    assert "token=" in url
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/")
    fixed = start_tagonce("review", "--port", "0", TAGONCE_REVIEW_TOKEN=TOKEN, XDG_CACHE_HOME=cache)
    assert address(fixed).endswith(f"/?token={TOKEN}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "mine"], "there is no profile 'mine'"),
        (["--query", "(("], "bracket"),
        (["--model", "none"], "none"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
    ],
)
def test_what_is_wrong_is_said_before_it_serves(
    invoke: Callable[..., Outcome], stored: Path, arguments: list[str], words: str
) -> None:
    outcome = invoke("review", "--port", "0", *arguments)
    assert outcome.code in (1, 2)
    assert words in outcome.err
    assert "Open" not in outcome.out


def test_a_port_that_is_taken_is_named(invoke: Callable[..., Outcome], stored: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = invoke("review", "--port", str(port))
    assert outcome.code == 2
    assert f"Port {port} of 127.0.0.1 is not available: Address already in use" in outcome.err


def test_a_short_token_is_no_token(invoke: Callable[..., Outcome], stored: Path) -> None:
    outcome = invoke("review", TAGONCE_REVIEW_TOKEN="short")  # noqa: S106
    assert outcome.code == 2
    assert "TAGONCE_REVIEW_TOKEN" in outcome.err


def test_without_a_database_it_says_what_to_do(invoke: Callable[..., Outcome]) -> None:
    outcome = invoke("review", "--port", "0")
    assert outcome.code == 1
    assert "Tag images first" in outcome.err


def test_without_the_extra_it_says_what_to_install(
    invoke: Callable[..., Outcome], stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tagonce.from_settings.find_spec", lambda name: None if name == "starlette" else object())
    outcome = invoke("review")
    assert outcome.code == 2
    assert "The review page needs starlette, not installed here: pip install 'tagonce[web]'" in outcome.err
