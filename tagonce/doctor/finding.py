"""What a check finds, and how checks are run: side by side, each with its own time, none able to stop the others."""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from queue import Empty, SimpleQueue

from db.errors import TagonceError


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, and something will bite later."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """There is nothing to look at on this machine."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    check: str
    status: Status
    message: str
    """What was seen."""
    advice: str = ""
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the installation."""

    name: str
    look: Callable[[], Iterable[Finding]]
    """Yields what it finds; what it raises is a finding too, and the last one."""
    seconds: float
    """After so long it is given up."""
    what: str = ""
    """Of several with this name, which one."""


def run(checks: Iterable[Check], secrets: Iterable[str]) -> Iterator[Finding]:
    """Findings in the order of the checks, which run at the same time.

    Args:
        secrets: what must not stand in a text, whoever wrote it.
    """
    words = "|".join(sorted(map(re.escape, filter(None, secrets)), key=len, reverse=True))
    # As words of their own: a short password must not make holes in all texts, which would tell it.
    hidden = re.compile(rf"(?<![^\W_])(?:{words or '(?!)'})(?![^\W_])")
    begun = time.monotonic()
    running = [(check, _start(check, hidden)) for check in checks]
    for check, findings in running:
        while True:
            left = begun + check.seconds - time.monotonic()
            try:
                finding = findings.get(timeout=max(left, 0.0))
            except Empty:
                yield Finding(
                    check.name,
                    Status.FAILED,
                    f"no answer within {check.seconds:g} s{check.what and f' from {check.what}'}",
                    "Something that it asks is very slow or away: a host, a network file system, a device.",
                )
                break
            if finding is None:
                break
            yield finding


def _start(check: Check, hidden: re.Pattern[str]) -> "SimpleQueue[Finding | None]":
    """None ends the queue. The thread is left behind when it hangs: it ends with the process."""
    findings: SimpleQueue[Finding | None] = SimpleQueue()

    def look() -> None:
        try:
            for finding in check.look():
                findings.put(finding)
        except TagonceError as error:
            findings.put(Finding(check.name, Status.FAILED, hidden.sub("***", str(error))))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks are worth seeing
            told = hidden.sub("***", f"{type(error).__name__}: {error}")
            advice = "Nobody has foreseen this. If the message does not help, it is worth a report."
            findings.put(Finding(check.name, Status.FAILED, told, advice))
        findings.put(None)

    threading.Thread(target=look, name=f"check {check.name}", daemon=True).start()
    return findings
