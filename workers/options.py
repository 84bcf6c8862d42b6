"""Options of a worker process."""

from dataclasses import dataclass, field

from workers.cpus import cores


@dataclass(frozen=True, slots=True)
class Options:
    """All options except the model, the database and the queue."""

    batch_size: int
    """Images in one forward."""
    device: str = "auto"
    """`auto`, `cpu`, `mps`, `cuda`, `cuda:1`, ... `auto` selects the first GPU, or the CPU if there is none."""
    precision: str = "auto"
    """`auto`, `fp32`, `fp16` or `bf16`. `auto`: on a CUDA GPU bf16, or fp16 if it lacks bf16; fp32 elsewhere."""
    compile: bool = False
    """Compile the network with torch at the first forward: minutes the first time, seconds from its cache."""
    torch_threads: int | None = None
    """Threads of torch for one forward on a CPU. None: one a core."""
    concurrency: int = 3
    """Chunks processed at once: one is fetched and decoded while another is on the device and a third is written."""
    fetchers: int = 32
    """Threads that fetch, shared by all chunks. They mostly wait, so many cost little."""
    decoders: int = field(default_factory=cores)
    """Threads that decode, shared by all chunks: one a core."""
    max_pixels: int = 178_956_970
    """Images with more pixels by their header are refused. The default is Pillow's limit for decompression bombs."""
    max_pixels_in_flight: int | None = None
    """Pixels of all images decoded at once. A larger image is decoded alone. None: twice `max_pixels`."""
    max_bytes: int = 256 * 1024 * 1024
    """Larger files are refused before they are read."""
    grace_seconds: float = 20.0
    """After SIGTERM: how long a chunk may continue before it is returned to the queue."""
    roots: tuple[str, ...] = ()
    """Folders and `s3://bucket/prefix`; files outside of all of them are not read. Empty: no limit."""
    stall_seconds: float = 600.0
    """A process without any progress for so long ends. 0: never."""
    max_idle_seconds: float | None = None
    """The worker ends after being idle for so long. None: never."""
