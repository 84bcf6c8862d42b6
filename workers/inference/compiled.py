"""Compiles the network with torch."""

import os
from collections.abc import Callable

import torch

from db.errors import SettingsError
from workers.cache_folder import cache_folder
from workers.inference.device import is_out_of_memory
from workers.inference.network import Network

Forward = Callable[[torch.Tensor], torch.Tensor]


def compiled(network: Network, device: torch.device) -> Forward:
    """The network as a function that is compiled at its first call, for the shape of that call.

    Compiled code is cached in `TORCHINDUCTOR_CACHE_DIR`, by default in tagonce's cache folder. CUDA graphs are not
    used: they belong to the thread that records them, and since a batch is always queued, the device does not wait for
    launches anyway.

    The function raises:
        SettingsError: no working compiler is installed, or no Triton for this GPU.
        Exception: the original error if memory runs out while compiling.
    """
    # The common base class of BackendCompilerFailed, TritonMissing and GPUTooOldForTriton.
    from torch._dynamo.exc import ShortenTraceback

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    mode = "max-autotune-no-cudagraphs" if device.type == "cuda" else "default"
    forward: Forward = torch.compile(network, mode=mode, dynamic=False)

    def run(images: torch.Tensor) -> torch.Tensor:
        try:
            return forward(images)
        except ShortenTraceback as error:
            cause = getattr(error, "inner_exception", error)
            if is_out_of_memory(cause):  # kernels are run while the compiler selects them
                raise cause from error
            first_line = str(cause).strip().partition("\n")[0].rstrip(".")
            needed = "Triton, a C compiler and Python.h" if device.type == "cuda" else "a C++ compiler such as g++"
            raise SettingsError(
                f"The network cannot be compiled here: {first_line}. TAGONCE_COMPILE (--compile) needs {needed}; "
                "switch it off with --no-compile."
            ) from error

    return run
