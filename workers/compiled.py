"""The network through torch's compiler."""

import os
from collections.abc import Callable

import torch

from db.errors import SettingsError
from workers.cache import cache_folder
from workers.models.network import Network

Forward = Callable[[torch.Tensor], torch.Tensor]


def compiled(network: Network, device: torch.device) -> Forward:
    """The same function, compiled when it is first called, for the shape of that call.

    What was compiled is kept in `TORCHINDUCTOR_CACHE_DIR`, by default in tagonce's cache folder. No CUDA graphs: they
    belong to the thread that records them, and with a batch always queued the device does not wait for launches.

    The function raises:
        SettingsError: there is no working compiler.
    """
    from torch._dynamo.exc import BackendCompilerFailed

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    mode = "max-autotune-no-cudagraphs" if device.type == "cuda" else "default"
    forward: Forward = torch.compile(network, mode=mode, dynamic=False)

    def run(images: torch.Tensor) -> torch.Tensor:
        try:
            return forward(images)
        except BackendCompilerFailed as error:
            first_line = str(error.inner_exception).strip().partition("\n")[0]
            raise SettingsError(
                f"The network cannot be compiled here: {first_line}. TAGONCE_COMPILE (--compile) needs a C++ compiler "
                "such as g++; switch it off with --no-compile."
            ) from error

    return run
