"""The network through torch's compiler."""

import os
from collections.abc import Callable

import torch

from db.errors import SettingsError
from workers.cache_folder import cache_folder
from workers.inference.device import is_out_of_memory
from workers.inference.network import Network

Forward = Callable[[torch.Tensor], torch.Tensor]


def compiled(network: Network, device: torch.device) -> Forward:
    """The same function, compiled when it is first called, for the shape of that call.

    What was compiled is kept in `TORCHINDUCTOR_CACHE_DIR`, by default in tagonce's cache folder. No CUDA graphs: they
    belong to the thread that records them, and with a batch always queued the device does not wait for launches.

    The function raises:
        SettingsError: there is no working compiler, or no Triton for this GPU.
        Exception: what the compiler ran out of memory with, as it came.
    """
    # TritonMissing and GPUTooOldForTriton are no BackendCompilerFailed; this is what all three are.
    from torch._dynamo.exc import ShortenTraceback

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    mode = "max-autotune-no-cudagraphs" if device.type == "cuda" else "default"
    forward: Forward = torch.compile(network, mode=mode, dynamic=False)

    def run(images: torch.Tensor) -> torch.Tensor:
        try:
            return forward(images)
        except ShortenTraceback as error:
            cause = getattr(error, "inner_exception", error)
            if is_out_of_memory(cause):  # kernels are tried out when they are chosen
                raise cause from error
            first_line = str(cause).strip().partition("\n")[0].rstrip(".")
            needed = "Triton, a C compiler and Python.h" if device.type == "cuda" else "a C++ compiler such as g++"
            raise SettingsError(
                f"The network cannot be compiled here: {first_line}. TAGONCE_COMPILE (--compile) needs {needed}; "
                "switch it off with --no-compile."
            ) from error

    return run
