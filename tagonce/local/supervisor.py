"""One worker process per device of this machine, restarted if it dies."""

import logging
import os
import re
import signal
import time
from dataclasses import dataclass, field

from db.errors import EXIT_FAILED, SettingsError
from db.names.plural import counted
from tagonce.local.worker_process import STOP_SECONDS, STOPPED_BY_US, WorkerProcess
from tagonce.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
RESTART_SECONDS = 10.0
"""Between two starts on a device, so that a worker that dies at once does not keep the machine busy."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT)
VISIBLE = "CUDA_VISIBLE_DEVICES"


def named_devices(devices: str) -> list[str]:
    """The devices of --devices: `all` CUDA GPUs, or a list separated by commas.

    Raises:
        SettingsError: there is no such GPU, or a name is empty.
    """
    if devices == "all":
        found = [f"cuda:{number}" for number in range(_gpus())]
        if not found:
            raise SettingsError("--devices all: no CUDA GPU was found. Name the devices, or use --device.")
        return found
    names = [name.strip() for name in devices.split(",")]
    if not all(names):
        raise SettingsError(f"--devices is `all` or a list such as cuda:0,cuda:1, not {devices!r}.")
    for name in names:
        number = _gpu(name)
        if number is not None and number >= (gpus := _gpus()):
            raise SettingsError(
                f"--devices: {name} was not found, {counted(gpus, 'CUDA GPU')} visible here. Choose others, or check "
                "`nvidia-smi -L` and CUDA_VISIBLE_DEVICES."
            )
    return names


def _gpus() -> int:
    """Number of visible CUDA GPUs. Counting makes no context, which would take memory on a GPU."""
    import torch

    return torch.cuda.device_count()


def _gpu(device: str) -> int | None:
    """Number of the GPU, from 0; None for another device."""
    found = re.fullmatch(r"cuda(?::(\d+))?", device)
    return int(found[1] or 0) if found else None


def shares(config: Settings, devices: list[str], cores: int) -> list[Settings]:
    """Settings of each process: threads are divided evenly unless set, and metrics ports are consecutive."""
    share = max(1, cores // len(devices))
    return [
        config.model_copy(
            update={
                "device": device,
                "decoders": config.decoders or share,
                "torch_threads": config.torch_threads or share,
                "metrics_port": config.metrics_port and config.metrics_port + number,
            }
        )
        for number, device in enumerate(devices)
    ]


def alone(config: Settings) -> tuple[Settings, dict[str, str]]:
    """Settings and environment of a process that sees no GPU but its own, and so takes memory on no other.

    An entry of CUDA_VISIBLE_DEVICES (a number, or the UUID of a GPU or of a MIG instance) is passed on as it is.
    """
    number = _gpu(config.device)
    if number is None:
        return config, {}
    visible = os.environ.get(VISIBLE)
    own = str(number) if visible is None else visible.split(",")[number].strip()
    return config.model_copy(update={"device": "cuda"}), {VISIBLE: own}


@dataclass(slots=True)
class _Child:
    device: str
    """As the user named it."""
    worker: WorkerProcess
    started_at: float = field(default_factory=time.monotonic)
    logged: bool = False
    """Its death is in the log."""
    restarted: bool = False
    """An earlier process ran with these settings, so they are valid."""


class Supervisor:
    """Starts the workers, forwards signals, and restarts workers that died.

    Args:
        configs: settings of each process.
    """

    def __init__(self, configs: list[Settings]) -> None:
        self._grace_seconds = configs[0].grace_seconds
        self._signals: list[int] = []
        for number in PASSED_ON:
            signal.signal(number, lambda number, _frame: self._signals.append(number))
        self._children = [_Child(config.device, WorkerProcess(*alone(config))) for config in configs]
        for child in self._children:
            _log_start(child)

    def run(self) -> int:
        """Run until a signal arrives, a worker exits with an error at its first start, or all workers were idle.

        A restarted worker that exits with an error has met an outage, and is restarted until the outage is over.

        Returns the exit code of the first worker that failed, or 0.
        """
        while not self._signals and any(child.worker.exit_code != 0 for child in self._children):
            for child in self._children:
                self._look_after(child)
            time.sleep(POLL_SECONDS)
        give_up = time.monotonic() + self._grace_seconds + STOP_SECONDS
        while any(child.worker.exit_code is None for child in self._children) and time.monotonic() < give_up:
            self._pass_on()
            time.sleep(POLL_SECONDS)
        for child in self._children:
            child.worker.wait(0)
        codes = [child.worker.exit_code for child in self._children]
        failed = [code for code in codes if code and -code not in PASSED_ON]
        return 0 if not failed else max(failed[0], EXIT_FAILED)

    def _look_after(self, child: _Child) -> None:
        code = child.worker.exit_code
        if code in (None, 0):  # running, or ended after max_idle
            return
        if code in STOPPED_BY_US and not child.restarted:
            self._signals.append(signal.SIGTERM)  # it printed why; the others would print the same
            return
        if not child.logged:
            log.warning("the worker on %s exited with code %d and is restarted", child.device, code)
            child.logged = True
        if time.monotonic() >= child.started_at + RESTART_SECONDS:
            child.worker.start()
            child.started_at, child.logged, child.restarted = time.monotonic(), False, True
            _log_start(child)

    def _pass_on(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            for child in self._children:
                child.worker.signal(number)


def _log_start(child: _Child) -> None:
    """Name its device: the process itself sees one GPU only, and the names of its metrics and rows have its id."""
    log.info("the worker on %s is process %d", child.device, child.worker.pid)
