"""The cost of preprocessing: tagonce compared with the published steps of the models, image by image, on one core.

    python bench/preprocess.py [--repeats 5] [--sizes 0.25,1,4,12]

    reference   PIL, torchvision's and timm's transforms: from the bytes of a file to float32 [3, S, S]
    tagonce     the same with `Decoder` and, in batches of 8, `Preprocess` on the CPU
    decoding    Pillow's `load` alone, which both contain: the lower limit

Times are CPU time of the working thread, the median of alternating repeats, which reduces the influence of other
programs. Every result is compared with that of the reference. A second table shows how decoding JPEGs at reduced size
(`dct_scaling`) changes the probabilities of the demo model. A third is for collating a batch of 64, where one image
with transparency gives all of them four channels.
"""

import argparse
import dataclasses
import io
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import skimage
import torch
import torchvision.transforms.functional as tv
from PIL import Image
from rich.console import Console
from rich.table import Table
from straight import transform_of

from tagonce.demo import PHOTOGRAPHS
from workers.images.decode import Decoded, Decoder
from workers.inference.infer import Inferencer
from workers.inference.preprocess import Preprocess
from workers.models.registry import find_model
from workers.models.spec import ModelSpec
from workers.options import Options

MAX_PIXELS = 50_000_000
BATCH = 8
CPU = torch.device("cpu")
THRESHOLDS = (0.2, 0.35, 0.5)
SCALED_SIZES = (512, 1024, 2048, 4096)
"""Long sides of the JPEGs of the second table."""
GRAIN = 3.0
"""Standard deviation of the noise that enlarged photographs get, in levels of 256."""
FORMATS: dict[str, dict[str, object]] = {
    "jpeg": {"format": "jpeg", "quality": 90},
    "png": {"format": "png", "compress_level": 6},
    "webp": {"format": "webp", "quality": 90, "method": 0},
    "png, alpha": {"format": "png", "compress_level": 6},
}
NOTHING = ModelSpec(name="none", family="timm", architecture="none", tags=(), weights=Path("none"), size=224)
SPECS = {
    "jtp": dataclasses.replace(
        NOTHING, resize="fit", size=384, filter="lanczos", background=(0.5, 0.5, 0.5), fill_when="after"
    ),
    "wd": dataclasses.replace(
        NOTHING,
        resize="square-pad",
        size=448,
        background=(1.0, 1.0, 1.0),
        fill=(1.0, 1.0, 1.0),
        channel_order="BGR",
    ),
    "timm": dataclasses.replace(NOTHING, crop_pct=0.875),
}


@dataclass(frozen=True)
class Costs:
    """Milliseconds an image, and the largest difference from the reference after normalising."""

    reference: float
    ours: float
    decoding: float
    difference: float

    @property
    def ratio(self) -> float:
        return self.reference / self.ours


def photograph(name: str) -> Image.Image:
    """One of those in scikit-image's wheel."""
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return image.convert("RGB")


def enlarged(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image enlarged, with grain: without it the file would be far smaller than a photograph of that size."""
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(1).normal(0.0, GRAIN, pixels.shape).astype(np.float32)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, options: dict[str, object]) -> bytes:
    """The bytes of the file."""
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def files(megapixels: float) -> Iterator[tuple[str, bytes]]:
    """One photograph of 4:3 in every format; with alpha as a gradient where the format has it."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    image = enlarged(photograph("coffee.png"), width, round(width * 3 / 4))
    for name, options in FORMATS.items():
        if name.endswith("alpha"):
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        yield name, encoded(image, options)


def reference_of(family: str) -> Callable[[Image.Image], torch.Tensor]:
    """From an open image to float32 [3, S, S]."""
    return wd_pixels if family == "wd" else transform_of(SPECS[family])


def wd_pixels(image: Image.Image, size: int = 448) -> torch.Tensor:
    """White under transparency where there is any, a white square, bicubic, normalise, RGB to BGR."""
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    pixels = tv.to_tensor(square.resize((size, size), Image.Resampling.BICUBIC))
    return tv.normalize(pixels, [0.5] * 3, [0.5] * 3)[[2, 1, 0]]


def measure(family: str, data: bytes, repeats: int) -> Costs:
    """Measure reference, tagonce and decoding in alternation."""
    reference = reference_of(family)
    decoder, preprocess = Decoder(SPECS[family], MAX_PIXELS), Preprocess(SPECS[family], CPU)
    batch = [decoder.decode(data)] * BATCH

    def open_image() -> Image.Image:
        return Image.open(io.BytesIO(data))

    def normalised() -> torch.Tensor:
        return preprocess.normalise(preprocess.collate(batch, BATCH))

    difference = float((reference(open_image()) - normalised()[0]).abs().max())
    steps: dict[str, Callable[[], object]] = {
        "reference": lambda: reference(open_image()),
        "ours": lambda: decoder.decode(data),
        "batch": normalised,
        "decoding": lambda: open_image().load(),
    }
    times = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(milliseconds(step))
    found = {name: statistics.median(values) for name, values in times.items()}
    return Costs(found["reference"], found["ours"] + found["batch"] / BATCH, found["decoding"], difference)


def milliseconds(step: Callable[[], object]) -> float:
    """CPU time of this thread."""
    begun = time.thread_time()
    step()
    return 1000 * (time.thread_time() - begun)


def compare(sizes: list[float], repeats: int) -> Table:
    """The first table."""
    table = Table("family", "megapixels", "format", title="Milliseconds an image, on one core", title_justify="left")
    for column in ("reference", "tagonce", "times", "decoding alone", "largest difference"):
        table.add_column(column, justify="right")
    found: dict[str, list[Costs]] = {family: [] for family in SPECS}
    for megapixels in sizes:
        for kind, data in files(megapixels):
            for family, collected in found.items():
                costs = measure(family, data, repeats)
                collected.append(costs)
                table.add_row(
                    *(family, f"{megapixels:g}", kind, f"{costs.reference:.1f}", f"{costs.ours:.1f}"),
                    *(f"{costs.ratio:.1f}", f"{costs.decoding:.1f}", f"{costs.difference:.1g}"),
                )
    for family, collected in found.items():
        mean = statistics.geometric_mean(costs.ratio for costs in collected)
        table.add_row(family, "all", "geometric mean", "", "", f"{mean:.1f}", "", "")
    for family, collected in found.items():
        decoding = sum(costs.decoding for costs in collected)
        reference, ours = (sum(getattr(costs, who) for costs in collected) - decoding for who in ("reference", "ours"))
        table.add_row(
            *(family, "all", "sum less decoding", f"{reference:.1f}", f"{ours:.1f}", f"{reference / ours:.1f}", "", "")
        )
    return table


def compare_scaled(repeats: int) -> Table:
    """The second table: the demo model with JPEGs decoded at reduced size."""
    plain = find_model("demo")
    decoders = [Decoder(spec, MAX_PIXELS) for spec in (plain, dataclasses.replace(plain, dct_scaling=True))]
    inferencer = Inferencer(plain, Options(batch_size=BATCH, device="cpu", precision="fp32"), floor=0)
    table = Table("long side", title=f"dct_scaling, the demo model, {len(PHOTOGRAPHS)} JPEGs", title_justify="left")
    for column in ("exact", "scaled", "times", "largest |dp|", "mean |dp|", "decisions changed"):
        table.add_column(column, justify="right")
    for side in SCALED_SIZES:
        photos = [jpeg_of(name, side) for name in PHOTOGRAPHS]
        costs = [
            statistics.mean(min(milliseconds(partial(decoder.decode, data)) for _ in range(repeats)) for data in photos)
            for decoder in decoders
        ]
        exact, scaled = (inferencer.probabilities([decoder.decode(data) for data in photos]) for decoder in decoders)
        changed = ", ".join(
            f"{int(((exact >= threshold) != (scaled >= threshold)).sum())} of {int((exact >= threshold).sum())} "
            f"at {threshold:g}"
            for threshold in THRESHOLDS
        )
        off = (exact - scaled).abs()
        table.add_row(
            *(str(side), f"{costs[0]:.1f} ms", f"{costs[1]:.1f} ms", f"{costs[0] / costs[1]:.1f}"),
            *(f"{off.max():.3f}", f"{off.mean():.1e}", changed),
        )
    return table


def jpeg_of(name: str, side: int) -> bytes:
    """A photograph whose long side is `side`."""
    image = photograph(name)
    scale = side / max(image.size)
    return encoded(enlarged(image, round(image.width * scale), round(image.height * scale)), FORMATS["jpeg"])


def compare_collating(repeats: int) -> Table:
    """The third table."""
    table = Table("batch of 64", title="Milliseconds to put a batch together", title_justify="left")
    for column in ("milliseconds", "times that of RGB"):
        table.add_column(column, justify="right")
    spec = SPECS["jtp"]
    preprocess = Preprocess(spec, CPU)
    plain, transparent = (Decoded(np.ones((spec.size, spec.size, n), np.uint8), 1, 1, "png") for n in (3, 4))
    batches = {"64 RGB": [plain] * 64, "63 RGB, 1 RGBA": [plain] * 63 + [transparent], "64 RGBA": [transparent] * 64}
    times = {
        name: statistics.median(milliseconds(partial(preprocess.collate, images, 64)) for _ in range(repeats + 1))
        for name, images in batches.items()
    }
    for name, found in times.items():
        table.add_row(name, f"{found:.1f}", f"{found / times['64 RGB']:.1f}")
    return table


def main() -> None:
    """All tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", default="0.25,1,4,12", help="in megapixels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=140)
    console.print(compare([float(size) for size in options.sizes.split(",")], options.repeats))
    console.print(compare_scaled(2))
    console.print(compare_collating(10 * options.repeats))


if __name__ == "__main__":
    main()
