"""`tagonce worker` as a child process."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from db.errors import EXIT_FAILED, EXIT_USAGE
from tagonce.local.embedded_redis import die_with_parent
from tagonce.settings import Settings

STOPPED_BY_US = (EXIT_FAILED, EXIT_USAGE)
"""Exit codes of a worker that printed an error: a restart would print it again."""
STOP_SECONDS = 60.0
"""Time for a worker to end, in addition to its grace."""


class WorkerProcess:
    """A child process that ends with its parent, and can be restarted.

    Args:
        settings: passed as environment variables.
        environment: other variables that are not those of this process.
        log: file for its output; None: the output of this process.
    """

    def __init__(
        self, settings: Settings, environment: Mapping[str, str] | None = None, *, log: Path | None = None
    ) -> None:
        self._environment = {**os.environ, **settings.as_environment(), **(environment or {})}
        self._log = log
        self.start()

    def start(self) -> None:
        output = self._log.open("ab") if self._log else None
        try:
            self._process = subprocess.Popen(
                # -P: the current folder may contain another db.py.
                [sys.executable, "-P", "-m", "tagonce", "worker"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is handled by this process
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, which takes no lock
            )
        finally:
            if output:
                output.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative if a signal ended it."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send a signal; does nothing if the process has ended."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> None:
        """Wait until it ends. Kill it after this time, or on Ctrl-C."""
        try:
            self._process.wait(timeout=seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
