"""Findings, and running checks: concurrently, each with a time limit, none able to stop the others."""

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
    """It works, but may cause problems later."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Nothing to check on this machine."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check."""

    check: str
    status: Status
    message: str
    """The observation."""
    advice: str = ""
    """Advice; empty if there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the installation."""

    name: str
    look: Callable[[], Iterable[Finding]]
    """Yields findings. An exception becomes the last finding."""
    seconds: float
    """Time limit."""
    what: str = ""
    """Tells several checks of this name apart."""


def run(checks: Iterable[Check], secrets: Iterable[str]) -> Iterator[Finding]:
    """Run checks concurrently. Yields findings in the order of the checks.

    Args:
        secrets: texts to mask in error messages.
    """
    words = "|".join(sorted(map(re.escape, filter(None, secrets)), key=len, reverse=True))
    # Whole words only: masking a short password inside other words would reveal it.
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
                    "A host, a network file system or a device is very slow or does not answer.",
                )
                break
            if finding is None:
                break
            yield finding


def _start(check: Check, hidden: re.Pattern[str]) -> "SimpleQueue[Finding | None]":
    """Start a check in a thread. None ends the queue. A thread that hangs ends with the process."""
    findings: SimpleQueue[Finding | None] = SimpleQueue()

    def look() -> None:
        try:
            for finding in check.look():
                findings.put(finding)
        except TagonceError as error:
            findings.put(Finding(check.name, Status.FAILED, hidden.sub("***", str(error))))
        except Exception as error:  # noqa: BLE001 - the other checks are shown in any case
            message = hidden.sub("***", f"{type(error).__name__}: {error}")
            advice = "This error is unexpected. If the message does not help, please report it."
            findings.put(Finding(check.name, Status.FAILED, message, advice))
        findings.put(None)

    threading.Thread(target=look, name=f"check {check.name}", daemon=True).start()
    return findings
