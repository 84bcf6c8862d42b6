"""What a worker is told at start."""

from dataclasses import dataclass, field

from workers.cpus import cores


@dataclass(frozen=True, slots=True)
class Options:
    """Everything but the model, the database and the queue."""

    batch_size: int
    """Images in one forward."""
    device: str = "auto"
    """`auto`, `cpu`, `mps`, `cuda`, `cuda:1`, ... `auto` takes the first GPU there is."""
    precision: str = "auto"
    """`auto`, `fp32`, `fp16` or `bf16`. `auto`: bf16 or fp16 on a CUDA GPU, whichever it has, fp32 elsewhere."""
    compile: bool = False
    """Let torch compile the network at the first forward: minutes once, seconds from what it keeps in its cache."""
    torch_threads: int | None = None
    """Threads that compute one forward on a CPU. None: one a core."""
    concurrency: int = 3
    """Chunks in work at once: one is fetched and decoded while another is on the device and a third is written."""
    fetchers: int = 32
    """Threads that fetch, shared by the chunks in work. They wait for others, so many cost little."""
    decoders: int = field(default_factory=cores)
    """Threads that decode, shared by the chunks in work: one a core."""
    max_pixels: int = 178_956_970
    """Larger images are refused by their header. The default is where Pillow takes an image for an attack."""
    max_pixels_in_flight: int | None = None
    """Of all images that are decoded at once. One that has more is decoded alone. None: twice `max_pixels`."""
    max_bytes: int = 256 * 1024 * 1024
    """Larger files are refused before they are read."""
    grace_seconds: float = 20.0
    """After SIGTERM: how long a chunk may go on before it is handed back to the queue."""
    roots: tuple[str, ...] = ()
    """Folders and `s3://bucket/prefix`: what lies outside of all of them is not read. Empty: everything is."""
    stall_seconds: float = 600.0
    """A process that gets no image a step further for so long ends. 0: never."""
    max_idle_seconds: float | None = None
    """The worker ends when it had nothing to do for so long. None: never."""
