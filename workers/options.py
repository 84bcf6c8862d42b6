"""What a worker can be configured with. `tagonce.settings` reads the same fields from the environment."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from workers.cpus import cores

SMALL_CHUNK = 64
"""Images in a chunk of `tagonce tag`, and few for one of `tagonce enqueue`."""
MOST_CHUNKS = 64


def chunks_for(batch_size: int) -> int:
    """Chunks that fill three batches: one is fetched and decoded, one is on the device, and one is written."""
    return min(MOST_CHUNKS, math.ceil(3 * max(1, batch_size / SMALL_CHUNK)))


class WorkerSettings(BaseModel):
    """Everything but the model, the database and the queue. None: decided where the worker starts."""

    model_config = ConfigDict(frozen=True)

    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="images in one forward; `auto` measures the best size once; default: 64 on a GPU, else 8"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field("auto", description="of weights and activations")
    """`auto`: fp16 on a CUDA GPU of compute capability 7.0 or later, fp32 elsewhere. The last layer is always fp32."""
    compile: bool | None = Field(
        None, description="compile the network with torch, minutes once; default: on a CUDA GPU, while it already runs"
    )
    """True: before the first image, or the worker ends. None: images are inferred uncompiled until it is done."""
    torch_threads: int | None = Field(
        None, ge=1, le=1024, description="threads of one forward on the CPU; default: one per core"
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        le=MOST_CHUNKS,
        description="chunks that a worker processes at once; default: 3, more for large batches",
    )
    """None: `chunks_for` the batch size."""
    fetchers: int = Field(32, ge=1, le=256, description="fetching threads of a worker")
    """Shared by the chunks. They wait for storage, so many cost little."""
    decoders: int | None = Field(None, ge=1, le=256, description="decoding threads of a worker; default: one per core")
    max_pixels: int = Field(178_956_970, ge=1, description="larger images fail as too_large")
    """Checked in the header. The default is Pillow's limit for decompression bombs."""
    max_bytes: int = Field(256 * 1024 * 1024, ge=1, description="larger files fail as too_large")
    """Checked before the file is read."""
    max_pixels_in_flight: int | None = Field(
        None, ge=1, description="pixels of all images decoded at once; default: twice TAGONCE_MAX_PIXELS"
    )
    """A larger image is decoded alone."""
    roots: tuple[str, ...] | None = Field(
        None, description="folders and `s3://bucket/prefix`, separated by commas; workers read nothing else"
    )
    """None or empty: workers read everything."""
    update_index: bool = Field(
        True, description="idle workers, and `tagonce tag` at its end, do what `tagonce index` does"
    )
    grace_seconds: float = Field(
        20.0, ge=0, description="time for a chunk to finish after SIGTERM, before it goes back to the queue"
    )
    stall_seconds: float = Field(
        600.0, ge=0, description="a worker that makes no progress for this long ends; 0: never"
    )
    max_idle: float | None = Field(
        None, gt=0, description="a worker without work for this many seconds ends; default: never"
    )


class Options(WorkerSettings):
    """The settings of a worker that starts: nothing is left to decide but the device and the precision."""

    batch_size: int
    concurrency: int = Field(default_factory=lambda given: chunks_for(given["batch_size"]))
    decoders: int = Field(default_factory=cores)
    roots: tuple[str, ...] = ()
