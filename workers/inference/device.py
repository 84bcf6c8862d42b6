"""The device: its selection and precision, copies to and from it, and how long it is busy."""

import time
from typing import Protocol

import torch

from db.errors import SettingsError

_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_FP16_CAPABILITY = (7, 0)
"""Volta, the first generation with matrix units for fp16."""


def pick_device(name: str) -> torch.device:
    """The device of a name. `auto`: the first CUDA GPU, else Apple's GPU, else the CPU.

    Raises:
        SettingsError: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).partition("\n")[0]
        raise SettingsError(
            f"The device {name!r} (TAGONCE_DEVICE, --device) cannot be used here: {first_line}"
        ) from error
    return device


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of weights and activations: `fp32`, `fp16`, `bf16` or `auto`. Probabilities are always float32."""
    if precision != "auto":
        return _PRECISIONS[precision]
    # fp16 and not bf16: its error is a twentieth, and images that overflow are computed again in fp32. Mean error of
    # the demo model's tags at or above 0.2, of 26 photographs: 0.0013 in fp16, 0.0262 in bf16.
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FP16_CAPABILITY
    return torch.float16 if fast else torch.float32


_OUT_OF_MEMORY = (
    "out of memory",  # CUDA, also as an AcceleratorError; HIP; MPS
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "Failed to allocate memory",  # ONNX Runtime
)
"""Parts of messages: only some of torch's allocators have an exception class for this."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the device or the host ran out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)
    )


def device_name(device: torch.device) -> str:
    """Name of the device, for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


class Uploads:
    """Copies tensors to a device while it computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stubs

    @property
    def pinned(self) -> bool:
        """Whether tensors to copy should be in pinned memory, from which the device copies without the CPU."""
        return self._stream is not None

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the device. Later launches of this thread wait for the copy; the thread itself does not."""
        if self._stream is None:
            return tensor.to(self._device)
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            there = tensor.to(self._device, non_blocking=True)
        computing.wait_stream(self._stream)
        there.record_stream(computing)  # otherwise its memory could be reused while it is read
        return there


def download(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the host. From a CUDA device it is complete only after `wait` of the span that it belongs to."""
    return tensor.to("cpu", non_blocking=tensor.device.type == "cuda")


class Span(Protocol):
    """Work on a device, from the creation of the span to `end`."""

    def end(self) -> None:
        """End the span: later launches do not belong to it."""

    def is_over(self) -> bool:
        """Whether `wait` would return at once."""

    def wait(self) -> float:
        """Wait until the device has finished the span. Returns the seconds that it was busy with it."""


def begin_span(device: torch.device) -> Span:
    """Begin a span of all that this thread launches on the device from now on."""
    return _CudaSpan(device) if device.type == "cuda" else _HostSpan()


class _CudaSpan:
    """Two events in the stream of the device, which reaches them after this thread has continued."""

    def __init__(self, device: torch.device) -> None:
        # The current device is a property of the thread, so the stream is requested for this device by name.
        self._stream = torch.cuda.current_stream(device)
        # Blocking: a waiting thread sleeps instead of occupying a core that the decoders need.
        self._begun, self._ended = (
            torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]  # torch's stubs
            for _ in range(2)
        )
        self._begun.record(self._stream)

    def end(self) -> None:
        self._ended.record(self._stream)

    def is_over(self) -> bool:
        over: bool = self._ended.query()  # type: ignore[no-untyped-call]  # torch's stubs
        return over

    def wait(self) -> float:
        self._ended.synchronize()
        milliseconds: float = self._begun.elapsed_time(self._ended)
        return milliseconds / 1000


class _HostSpan:
    """On the CPU the work is done when the call returns."""

    def __init__(self) -> None:
        self._begun = self._ended = time.perf_counter()

    def end(self) -> None:
        self._ended = time.perf_counter()

    def is_over(self) -> bool:
        return True

    def wait(self) -> float:
        return self._ended - self._begun
