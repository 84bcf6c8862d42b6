"""What a worker is told at start."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """Everything but the model, the database and the queue."""

    batch_size: int
    """Images in one forward."""
    device: str = "auto"
    """`auto`, `cpu`, `mps`, `cuda`, `cuda:1`, ... `auto` takes the first GPU there is."""
    precision: str = "auto"
    """`auto`, `fp32`, `fp16` or `bf16`. `auto`: bf16 or fp16 on a CUDA GPU, whichever it has, fp32 elsewhere."""
    concurrency: int = 3
    """Chunks in work at once: one is fetched and decoded while another is on the device and a third is written."""
    loaders: int = 8
    """Threads that fetch and decode, shared by the chunks in work."""
    max_pixels: int = 178_956_970
    """Larger images are refused by their header. The default is where Pillow takes an image for an attack."""
    max_bytes: int = 256 * 1024 * 1024
    """Larger files are refused before they are read."""
    grace_seconds: float = 20.0
    """After SIGTERM: how long a chunk may go on before it is handed back to the queue."""
