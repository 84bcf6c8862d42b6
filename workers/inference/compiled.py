"""Compiles the network with torch."""

from collections.abc import Callable

import torch

from db.errors import SettingsError
from workers.inference.device import is_out_of_memory

Forward = Callable[[torch.Tensor], torch.Tensor]


def compiled(network: Forward, images: torch.Tensor) -> Forward:
    """The network as a function for tensors of the shape of `images`, compiled by calling it once with them.

    Compiled code is cached (`workers.cache_folder`): the first time takes minutes, later ones seconds. CUDA graphs are
    not used: a batch is always queued, so the device does not wait for launches anyway.

    Raises:
        SettingsError: the network cannot be compiled. Mostly there is no working compiler, or no Triton for this GPU.
        Exception: the original error if memory runs out while compiling.
    """
    on_cuda = images.device.type == "cuda"
    mode = "max-autotune-no-cudagraphs" if on_cuda else "default"
    forward: Forward = torch.compile(network, mode=mode, dynamic=False)
    try:
        forward(images)
    except Exception as error:
        # Not only torch's own errors for this: Triton starts the C compiler, and raises what subprocess does.
        cause = getattr(error, "inner_exception", error)
        if is_out_of_memory(cause):  # kernels are run while the compiler selects them
            raise cause from error
        first_line = str(cause).strip().partition("\n")[0].rstrip(".")
        needed = "Triton, a C compiler and Python.h" if on_cuda else "a C++ compiler"
        raise SettingsError(
            f"The network cannot be compiled here: {first_line}. Install {needed} (Debian and Ubuntu: apt install g++ "
            "python3-dev), or set --no-compile (TAGONCE_COMPILE=False)."
        ) from error
    return forward
