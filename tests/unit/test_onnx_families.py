"""ONNX taggers: each family in its published signature and tag list, from a file to probabilities.

The expected probabilities are computed with Pillow and numpy, from the steps that the families publish.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.onnx_models import SIDE, Array, Tiny, write_csv, write_json, write_onnx
from workers.images.decode import Decoder
from workers.inference.infer import Inferencer
from workers.models.folder import read_folder
from workers.options import Options

CLOSE = 1e-5
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
CAMIE_GREY = (124, 116, 104)
NAMES = ("1girl", "solo", "long_hair", "smile", "wolf", "fox", "night", "water", "sword", "hat", "scarf", "group")
WD_COLUMNS = ("tag_id", "name", "category", "count")


# ── steps of preprocessing ──


def on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image.convert("RGBA")).convert("RGB")


def centred(image: Image.Image, side: int, colour: tuple[int, int, int]) -> Image.Image:
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def fitted(
    image: Image.Image,
    side: int,
    resample: Image.Resampling,
    colour: tuple[int, int, int],
    rounded: Callable[[float], int],
) -> Image.Image:
    scale = min(side / image.width, side / image.height)
    size = (max(1, rounded(image.width * scale)), max(1, rounded(image.height * scale)))
    return centred(image.resize(size, resample), side, colour)


def squashed(image: Image.Image, resample: Image.Resampling) -> Image.Image:
    return on_white(image).resize((SIDE, SIDE), resample)


def white_square(image: Image.Image) -> Image.Image:
    return centred(on_white(image), max(image.size), WHITE).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def planes(image: Image.Image) -> Array:
    """[3, S, S], 0 to 255."""
    return np.asarray(image, np.float64).transpose(2, 0, 1)


def to_imagenet(values: Array) -> Array:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    found: Array = (values / 255 - mean[:, None, None]) / std[:, None, None]
    return found


def wd_planes(image: Image.Image) -> Array:
    return planes(white_square(image))[::-1]


def cl_planes(image: Image.Image) -> Array:
    return planes(white_square(image))[::-1] / 127.5 - 1


def cl2_planes(image: Image.Image) -> Array:
    return planes(squashed(image, Image.Resampling.BICUBIC)) / 127.5 - 1


def pixai09_planes(image: Image.Image) -> Array:
    return planes(squashed(image, Image.Resampling.BILINEAR)) / 127.5 - 1


def pixai10_planes(image: Image.Image) -> Array:
    return planes(fitted(on_white(image), SIDE, Image.Resampling.BILINEAR, BLACK, int)) / 127.5 - 1


def camie_planes(image: Image.Image) -> Array:
    return to_imagenet(planes(fitted(on_white(image), SIDE, Image.Resampling.LANCZOS, CAMIE_GREY, int)))


def animetimm_planes(image: Image.Image) -> Array:
    """Two resizes: fitted into a larger white square, and then made smaller."""
    first = fitted(on_white(image), SIDE + 8, Image.Resampling.BILINEAR, WHITE, round)
    return to_imagenet(planes(first.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))


def ml_danbooru_planes(image: Image.Image) -> Array:
    return planes(squashed(image, Image.Resampling.BILINEAR)) / 255


def deepdanbooru_planes(image: Image.Image) -> Array:
    return planes(fitted(on_white(image), SIDE, Image.Resampling.BICUBIC, BLACK, int)) / 255


# ── the files beside the model ──


def wd_rows(ratings: Sequence[str], others: dict[str, int]) -> list[tuple[object, ...]]:
    """Rows of a list: ratings, then the other names with their categories."""
    numbers = dict.fromkeys(ratings, 9) | {name: others.get(name, 0) for name in NAMES}
    return [(1000 + row, name, number, 5000 - row) for row, (name, number) in enumerate(numbers.items())]


DANBOORU = wd_rows(("general", "sensitive", "questionable", "explicit"), {"wolf": 4})
E621 = wd_rows(("safe", "questionable", "explicit"), {"wolf": 5})


def write_wd(folder: Path) -> None:
    write_csv(folder / "selected_tags.csv", WD_COLUMNS, DANBOORU)


def write_e621(folder: Path) -> None:
    write_csv(folder / "selected_tags.csv", WD_COLUMNS, E621)


def write_z3d(folder: Path) -> None:
    write_csv(folder / "tags-selected.csv", ("id", *WD_COLUMNS[1:]), E621[3:])


def write_cl(folder: Path) -> None:
    entries = [{"tag": name, "category": "Character" if name == "wolf" else "General"} for name in NAMES]
    write_json(folder / "tag_mapping.json", {str(index): entry for index, entry in enumerate(entries)})


def write_cl2(folder: Path) -> None:
    vocabulary = {
        "num_tags": len(NAMES),
        "tag_to_idx": {name: index for index, name in enumerate(NAMES)},
        "idx_to_tag": {str(index): name for index, name in enumerate(NAMES)},
        "tag_to_category": {name: "Character" if name == "wolf" else "General" for name in NAMES},
        "categories": ["General", "Quality", "Rating", "Character", "Copyright", "Meta"],
    }
    write_json(folder / "model_vocabulary.json", vocabulary)


def write_stages(folder: Path, columns: Sequence[str], stages: list[dict[str, object]], key: str) -> None:
    rows = [(row, name, 4 if name == "wolf" else 0, 9, 0.4) for row, name in enumerate(NAMES)]
    write_csv(folder / "selected_tags.csv", columns, rows)
    write_json(folder / "preprocess.json", {key: stages})


def write_pixai09(folder: Path) -> None:
    stages: list[dict[str, object]] = [
        {"type": "convert_rgb", "force_background": "white"},
        {"type": "resize", "size": [SIDE, SIDE], "interpolation": "bilinear", "antialias": True, "max_size": None},
        {"type": "maybe_to_tensor"},
        {"type": "normalize", "mean": [0.5] * 3, "std": [0.5] * 3},
    ]
    write_stages(folder, (*WD_COLUMNS, "ips"), stages, "stages")


def write_animetimm(folder: Path) -> None:
    large = [SIDE + 8, SIDE + 8]
    stages: list[dict[str, object]] = [
        {"type": "pad_to_size", "size": large, "background_color": "white", "interpolation": "bilinear"},
        {"type": "resize", "size": SIDE, "interpolation": "bicubic", "antialias": True, "max_size": None},
        {"type": "center_crop", "size": [SIDE, SIDE]},
        {"type": "maybe_to_tensor"},
        {"type": "normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    ]
    write_stages(folder, (*WD_COLUMNS, "best_threshold"), stages, "test")


def write_camie(folder: Path) -> None:
    mapping = {
        "idx_to_tag": {str(index): name for index, name in enumerate(NAMES)},
        "tag_to_category": {name: "character" if name == "wolf" else "general" for name in NAMES},
    }
    metadata = {"model_info": {"img_size": 512}, "dataset_info": {"total_tags": len(NAMES), "tag_mapping": mapping}}
    write_json(folder / "camie-tagger-v2-metadata.json", metadata)


def write_pixai10(folder: Path) -> None:
    """As noaione/pixai-tagger-v1.0-onnx has it."""
    wolf = NAMES.index("wolf")
    parts = (("general", NAMES[:wolf]), ("character", NAMES[wolf : wolf + 1]), ("copyright", NAMES[wolf + 1 :]))
    categories, offset = [], 0
    for name, tags in parts:
        categories.append({"name": name, "offset": offset, "count": len(tags), "tags": list(tags)})
        offset += len(tags)
    write_json(folder / "tags.json", {"num_classes": len(NAMES), "categories": categories})


def write_pixai10_config(folder: Path) -> None:
    """As the original repository has it."""
    split = [["general", NAMES.index("wolf")], ["character", 1], ["copyright", len(NAMES) - NAMES.index("wolf") - 1]]
    write_json(folder / "config.json", {"model_type": "cls_vitdet", "tags": list(NAMES), "tags_split": split})


def write_classes(folder: Path) -> None:
    write_json(folder / "class.json", {str(index): name for index, name in enumerate(NAMES)})


def write_lines(folder: Path) -> None:
    lines = (*NAMES, "rating:safe", "rating:questionable", "rating:explicit")
    (folder / "tags.txt").write_text("\n".join(lines) + "\n")


# ── the families ──


@dataclass(frozen=True)
class Family:
    """A published model: its file, its tag list, its preprocessing, and what is recognised."""

    tiny: Tiny
    write: Callable[[Path], None]
    planes: Callable[[Image.Image], Array]
    family: str
    wolf: str | None
    """Category of the tag `wolf`."""
    threshold: float
    file: str = "model.onnx"
    external: str | None = None


def nhwc(tags: int, scale: float, output: str) -> Tiny:
    return Tiny(tags, "NHWC", "input_1:0", probabilities=output, input_scale=scale)


COUNT = len(NAMES)
RANGE = 255.0
FAMILIES = {
    "wd": Family(nhwc(len(DANBOORU), RANGE, "predictions_sigmoid"), write_wd, wd_planes, "wd", "character", 0.35),
    "nzs234": Family(nhwc(len(E621), RANGE, "output"), write_e621, wd_planes, "wd", "species", 0.35),
    "z3d": Family(nhwc(COUNT, RANGE, "predictions_sigmoid"), write_z3d, wd_planes, "z3d", "species", 0.3),
    "cl": Family(Tiny(COUNT, logits="output"), write_cl, cl_planes, "cl", "character", 0.55),
    "cl2": Family(
        Tiny(COUNT, input_name="pixel_values", logits="logits"),
        *(write_cl2, cl2_planes, "cl", "character", 0.55),
        external="model.onnx.data",
    ),
    "pixai09": Family(
        Tiny(COUNT, logits="logits", probabilities="prediction", others=("embedding",)),
        *(write_pixai09, pixai09_planes, "pixai", "character", 0.3),
    ),
    "animetimm": Family(
        Tiny(COUNT, logits="logits", probabilities="prediction", others=("embedding",)),
        *(write_animetimm, animetimm_planes, "animetimm", "character", 0.4),
    ),
    "camie": Family(
        Tiny(COUNT, logits="refined_predictions", others=("initial_predictions", "selected_candidates")),
        *(write_camie, camie_planes, "camie", "character", 0.614, "camie-tagger-v2.onnx"),
    ),
    "pixai10": Family(Tiny(COUNT, logits="logits"), write_pixai10, pixai10_planes, "pixai", "character", 0.2),
    "pixai10-config": Family(
        Tiny(COUNT, logits="logits"), write_pixai10_config, pixai10_planes, "pixai", "character", 0.2
    ),
    "ml-danbooru": Family(
        Tiny(COUNT, logits="output"),
        *(write_classes, ml_danbooru_planes, "ml-danbooru", None, 0.7, "ml_caformer_m36_dec-5-97527.onnx"),
    ),
    "deepdanbooru": Family(
        nhwc(COUNT + 3, 1.0, "output"), write_lines, deepdanbooru_planes, "deepdanbooru", None, 0.5, "deepdanbooru.onnx"
    ),
}


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Transparent and turned by EXIF, with odd sides; and a thin strip."""
    random, found = np.random.default_rng(3), []
    for size, mode in (((111, 83), "RGBA"), ((7, 211), "RGB")):
        noise = random.integers(0, 256, (11, 9, len(mode)), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6
        buffer = io.BytesIO()
        Image.fromarray(noise, mode).resize(size, Image.Resampling.BICUBIC).save(buffer, "png", exif=exif)
        found.append(buffer.getvalue())
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_a_published_tagger_gives_the_probabilities_of_its_own_steps(
    tmp_path: Path, pictures: list[bytes], name: str
) -> None:
    family = FAMILIES[name]
    write_onnx(tmp_path, family.tiny, family.file, external=family.external)
    family.write(tmp_path)
    spec = read_folder(tmp_path)
    wolf = next(tag for tag in spec.tags if tag.name == "wolf")
    assert (spec.family, spec.size, wolf.category) == (family.family, SIDE, family.wolf)
    assert spec.default_threshold == family.threshold
    decoder = Decoder(spec, max_pixels=10**6)
    inferencer = Inferencer(spec, Options(batch_size=2, device="cpu", torch_threads=1), floor=0)
    found = inferencer.probabilities([decoder.decode(data) for data in pictures])
    for data, row in zip(pictures, found.numpy(), strict=True):
        expected = family.tiny.run(family.planes(Image.open(io.BytesIO(data))))
        assert expected.std() > 0.05, "weights that hide a wrong order of channels"
        np.testing.assert_allclose(row, expected, atol=CLOSE, rtol=0)
