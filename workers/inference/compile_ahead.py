"""Compiles the network in a process of its own, into torch's cache, while the worker infers with the uncompiled one.

Not in a thread: tracing a network changes torch and the interpreter for all threads of a process, it would hold the
interpreter lock against the decoders, and the kernels that are tried would run out of the memory of running batches.

The process is `python -m workers.inference.compile_ahead`. It reads what to compile from its standard input and ends
when that is closed, and so with the worker, however that ends.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from typing import IO, NoReturn, cast

from workers.models.spec import ModelSpec
from workers.options import Options

NICENESS = 10
"""Decoding comes first."""
SHARE_OF_FREE_MEMORY = 0.9
"""Of the GPU's memory that the worker leaves free, so that its batches do not run out of it meanwhile."""


class CompileAhead:
    """A process that compiles a model for one batch size.

    Args:
        size: images in a batch.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, spec: ModelSpec, options: Options, size: int) -> None:
        self.size = size
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        try:
            self._process = subprocess.Popen(
                # -P: the current folder may contain another db.py.
                [sys.executable, "-P", "-m", "workers.inference.compile_ahead"],
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=self._output,
                env=os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": str(options.decoders)},
                start_new_session=True,  # Ctrl-C is for the worker
            )
        except OSError:
            self._output.close()
            raise
        self._input = cast("IO[bytes]", self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # it has ended: `failure` says why
            pickle.dump((spec, options.model_copy(update={"batch_size": size})), self._input)
            self._input.flush()

    @property
    def is_running(self) -> bool:
        """Whether it still compiles."""
        return self._process.poll() is None

    def failure(self) -> str | None:
        """Why it failed, after it has ended; None if the cache has the compiled network."""
        if self._process.returncode == 0:
            return None
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{said} (code {self._process.returncode})"

    def stop(self) -> None:
        """End it if it runs, and forget what it printed."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        self._output.close()


def _main() -> None:
    spec, options = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICENESS)

    import torch

    from workers.inference.device import is_out_of_memory, pick_device
    from workers.inference.infer import Inferencer

    device = pick_device(options.device)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device.index)
        torch.cuda.set_per_process_memory_fraction(SHARE_OF_FREE_MEMORY * free / total, device.index)
    try:
        Inferencer(spec, options, floor=0).compile()
    except Exception as error:  # noqa: BLE001 - the worker logs it
        too_little = "The device has too little memory to compile the network while it is in use"
        sys.exit(too_little if is_out_of_memory(error) else str(error))


def _end_with_parent() -> NoReturn:
    os.read(sys.stdin.fileno(), 1)  # not `sys.stdin`, whose lock a normal end of the process needs
    os._exit(os.EX_UNAVAILABLE)


if __name__ == "__main__":
    _main()
