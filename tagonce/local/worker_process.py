"""`tagonce worker` as a child process."""

import os
import subprocess
import sys
from pathlib import Path

from db.errors import EXIT_FAILED, EXIT_USAGE
from tagonce.local.embedded_redis import die_with_parent
from tagonce.settings import Settings

STOPPED_BY_US = (EXIT_FAILED, EXIT_USAGE)
"""Exit codes of a worker that said why: a restart would say it again."""
STOP_SECONDS = 60.0
"""Beyond its grace: how long a worker may take to end."""


class WorkerProcess:
    """One child, which ends with us whatever happens, and can be started again.

    Args:
        settings: what it is told.
        log: where its output goes; without it, where ours goes.
    """

    def __init__(self, settings: Settings, log: Path | None = None) -> None:
        told = settings.as_environment()
        self._environment = os.environ | told
        self._log = log
        self.start()

    def start(self) -> None:
        output = self._log.open("ab") if self._log else None
        try:
            self._process = subprocess.Popen(
                # -P: the current folder may hold a db.py of its own.
                [sys.executable, "-P", "-m", "tagonce", "worker"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is ours to answer
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, which takes no lock
            )
        finally:
            if output:
                output.close()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Nothing happens when it has ended."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> None:
        """Until it ends; when that takes longer, or Ctrl-C comes meanwhile, it is killed."""
        try:
            self._process.wait(timeout=seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
