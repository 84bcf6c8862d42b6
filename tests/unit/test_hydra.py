"""Hydra against its formulas, written here in plain torch from the description of its networks, and Pillow."""

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as f

from db.errors import ModelError
from db.ledger.models import Tag
from tests.fixtures import tiny_families as tiny
from tests.fixtures.pictures_of_families import pictures, swapped_profile
from workers.images.decode import Decoder
from workers.inference.infer import Inferencer
from workers.inference.networks import hydra
from workers.models.folder import read_folder
from workers.models.spec import ModelSpec
from workers.options import Options
from workers.resize.patch_grid import patch_grid

PICTURES = pictures()
WRITERS: dict[str, Callable[[Path], Path]] = {"jtp3": tiny.write_jtp3, "hydra35": tiny.write_hydra35}
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module", params=WRITERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy for the test to change."""
    return Path(shutil.copytree(folder, tmp_path / folder.name))


def probabilities(spec: ModelSpec, *files: bytes) -> torch.Tensor:
    decoder = Decoder(spec, 20_000_000)
    inferencer = Inferencer(spec, Options(batch_size=len(files), device="cpu"), floor=0)
    return inferencer.probabilities([decoder.decode(file) for file in files])


def change_weights(folder: Path, change: Callable[[Tensors], None]) -> None:
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    change(tensors)
    tiny.save(path, tensors, metadata)


def change_header(folder: Path, **texts: str) -> None:
    path = next(folder.glob("*.safetensors"))
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    tiny.save(path, load_file(path), metadata | {name.replace("_", "."): text for name, text in texts.items()})


# ── the formulas ──


def upright_srgb(data: bytes) -> Image.Image:
    """RGB or RGBA after orientation and profile."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    profile = image.info.pop("icc_profile", None)
    if image.mode == "LA":
        image = image.convert("RGBA")
    if profile:
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.HIGHRESPRECALC
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, source, target, intent, image.mode, flags=flags)
    return image


def grid_of(width: int, height: int) -> tuple[int, int]:
    """Rows and columns; the largest scale is searched for in small steps instead of by bisection."""
    rows, columns = max(1, height // 16), max(1, width // 16)
    if rows * columns <= 1024:
        return rows, columns
    scales = np.arange(1, 100_001) / 100_000
    grids = np.minimum(np.ceil(np.outer(scales, [height, width]) / 16), [rows, columns])
    best = grids[grids.prod(axis=1) <= 1024][-1]
    return int(best[0]), int(best[1])


def resized_by_pillow(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """JTP-3: premultiplied, LANCZOS."""
    image = image.convert("RGBa") if image.mode == "RGBA" else image
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image)[..., :3]


def resized_in_linear_light(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """3.5: over white, then both axes as products with matrices of the kernel's values, on 16-bit linear values."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    value = np.asarray(image) / 255
    linear = np.rint(np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) * 65535)
    for axis, new in ((0, size[1]), (1, size[0])):
        matrix = kernel_matrix(linear.shape[axis], new)
        linear = np.rint(np.moveaxis(np.tensordot(matrix, linear, (1, axis)), 0, axis)).clip(0, 65535)
    linear = linear / 65535
    return np.rint(255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


def kernel_matrix(old: int, new: int) -> np.ndarray:
    """[new, old]: Magic Kernel Sharp 2013, with the pixels at the edges repeated."""
    if old == new:
        return np.eye(old)
    stretch = max(old / new, 1)
    margin = int(3 * stretch) + 3
    at = np.arange(-margin, old + margin)
    x = np.abs(at[None] - ((np.arange(new)[:, None] + 0.5) * old / new - 0.5)) / stretch
    pieces = [17 / 16 - 7 / 4 * x**2, (4 * x**2 - 11 * x + 7) / 4, -((x - 5 / 2) ** 2) / 8]
    values = np.select([x < 0.5, x < 1.5, x < 2.5], pieces, 0.0)
    values /= values.sum(axis=1, keepdims=True)
    matrix = np.zeros((new, old))
    np.add.at(matrix.T, at.clip(0, old - 1), values.T)
    return matrix


def tokens_of(pixels: np.ndarray, w: Tensors) -> torch.Tensor:
    """The body, one picture at a time and without a mask: [tokens, width]."""
    rows, columns = pixels.shape[0] // 16, pixels.shape[1] // 16
    image = torch.tensor(pixels.copy()).float() / 127.5 - 1
    patches = torch.stack(
        [image[16 * r : 16 * r + 16, 16 * c : 16 * c + 16].flatten() for r in range(rows) for c in range(columns)]
    )
    table = w["embeds.pos_embed"].permute(0, 3, 1, 2)
    places = f.interpolate(table, (rows, columns), mode="bilinear", antialias=True, align_corners=False)
    x = patches @ w["embeds.proj.weight"].T + w["embeds.proj.bias"] + places[0].flatten(1).T
    for index in range(tiny.HYDRA["depth"]):
        x = block(x, {name.removeprefix(f"blocks.{index}."): value for name, value in w.items()})
    return f.layer_norm(x, x.shape[-1:], w["norm.weight"], w["norm.bias"], 1e-6)


def block(x: torch.Tensor, w: Tensors) -> torch.Tensor:
    heads = tiny.HYDRA["num_heads"]
    y = f.layer_norm(x, x.shape[-1:], w["norm1.weight"], w["norm1.bias"], 1e-6)
    q, k, v = (y @ w["attn.qkv.weight"].T + w["attn.qkv.bias"]).chunk(3, dim=-1)
    parts = [
        softmax_attention(*pair)
        for pair in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True)
    ]
    x = x + torch.cat(parts, -1) @ w["attn.proj.weight"].T + w["attn.proj.bias"]
    y = f.layer_norm(x, x.shape[-1:], w["norm2.weight"], w["norm2.bias"], 1e-6)
    y = f.gelu(y @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"], approximate="tanh")
    return x + y @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]


def softmax_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v


def rms(u: torch.Tensor) -> torch.Tensor:
    return u / (u.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def pooled(x: torch.Tensor, w: Tensors) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Attention of the tags; and keys and values by head."""
    keys, values = (x @ w["attn_pool.kv.weight"].T).chunk(2, dim=-1)
    heads = range(tiny.HEADS)
    k = [rms(keys[:, h * tiny.HEAD_WIDTH :][:, : tiny.HEAD_WIDTH]) for h in heads]
    v = [values[:, h * tiny.HEAD_WIDTH :][:, : tiny.HEAD_WIDTH] for h in heads]
    return torch.cat([softmax_attention(w["attn_pool.q"][h], k[h], v[h]) for h in heads], -1), k, v


def jtp3_logits(x: torch.Tensor, w: Tensors) -> torch.Tensor:
    y, _, _ = pooled(x, w)
    z = f.layer_norm(y, y.shape[-1:], w["attn_pool.ff_norm.weight"], w["attn_pool.ff_norm.bias"], 1e-5)
    a, b = (z @ w["attn_pool.ff_in.weight"].T).chunk(2, -1)
    y = y + (f.silu(a) * b) @ w["attn_pool.ff_out.weight"].T
    z = torch.stack([y[tag] @ w["attn_pool.out_proj.weight"][tag] for tag in range(tiny.HYDRA_TAGS)])
    return f.silu(z[:, 0]) * z[:, 1]


def hydra35_logits(x: torch.Tensor, w: Tensors) -> torch.Tensor:
    y, k, v = pooled(x, w)

    def ff(y: torch.Tensor, prefix: str) -> torch.Tensor:
        a, b = (f.layer_norm(y, y.shape[-1:], eps=1e-5) @ w[f"{prefix}ff.proj_in.weight"].T).chunk(2, -1)
        return (f.softplus(a) * b) @ w[f"{prefix}ff.proj_out.weight"].T

    y = y + ff(y, "attn_pool.")
    mid = "attn_pool.mid_blocks.0."
    queries = (y @ w[f"{mid}q_proj.weight"].T).chunk(tiny.HEADS, -1)
    parts = [softmax_attention(rms(q), k[h], v[h]) for h, q in enumerate(queries)]
    y = y + torch.cat(parts, -1) @ w[f"{mid}o_proj.weight"].T
    y = y + ff(y, mid)
    return (y * w["head.weight"]).sum(-1)


FORMULAS = {"jtp3": (resized_by_pillow, jtp3_logits), "hydra35": (resized_in_linear_light, hydra35_logits)}


def expected(folder: Path, data: bytes) -> torch.Tensor:
    resized, logits = FORMULAS[folder.name]
    image = upright_srgb(data)
    rows, columns = grid_of(*image.size)
    weights = load_file(next(folder.glob("*.safetensors")))
    return logits(tokens_of(resized(image, (16 * columns, 16 * rows)), weights), weights).sigmoid()


# ── the tests ──


def test_probabilities_are_those_of_the_formulas_for_every_kind_of_picture(folder: Path) -> None:
    """In one batch, which is padded to the tokens of the largest."""
    found = probabilities(read_folder(folder), *PICTURES.values())
    wanted = torch.stack([expected(folder, data) for data in PICTURES.values()])
    assert wanted.std(dim=0).min() > 0.005
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_picture_has_the_same_probabilities_alone_and_in_a_batch(folder: Path) -> None:
    """Alone, the small one is padded to 256 tokens, and with a large one to 1,024."""
    spec = read_folder(folder)
    together = probabilities(spec, PICTURES["small"], PICTURES["large"])
    torch.testing.assert_close(probabilities(spec, PICTURES["small"])[0], together[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16"])
def test_a_profile_of_other_colours_changes_nothing(tmp_path: Path, mode: str) -> None:
    """It is one of RGB. Sixteen bits are scaled as without a profile."""
    grey = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    image = Image.fromarray(grey) if mode == "I;16" else Image.fromarray((grey >> 8).astype(np.uint8)).convert(mode)
    spec = read_folder(tiny.write_jtp3(tmp_path))
    pixels = []
    for options in ({}, {"icc_profile": swapped_profile()}):
        file = io.BytesIO()
        image.save(file, "tiff", **options)
        pixels.append(Decoder(spec, 20_000_000).decode(file.getvalue()).pixels)
    assert np.array_equal(*pixels)
    assert pixels[0].std() > 50


def test_a_large_picture_is_averaged_before_it_is_filtered(tmp_path: Path) -> None:
    """As by Pillow's `reducing_gap`, here to 48 patches, because a picture for 1,024 would have ten megapixels."""
    spec = dataclasses.replace(read_folder(tiny.write_jtp3(tmp_path)), size=128)
    image = upright_srgb(PICTURES["large"])
    found = Decoder(spec, 20_000_000).decode(PICTURES["large"]).pixels
    size = (found.shape[1], found.shape[0])
    assert np.array_equal(found, np.asarray(image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)))
    assert not np.array_equal(found, np.asarray(image.resize(size, Image.Resampling.LANCZOS)))


def test_tags_in_chunks_are_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, data = read_folder(folder), PICTURES["alpha, odd sides"]
    whole = probabilities(spec, data)
    monkeypatch.setattr(hydra, "CHUNK", 7)
    torch.testing.assert_close(probabilities(spec, data), whole, atol=1e-6, rtol=0)


def test_tags_have_the_categories_and_implications_of_the_files(folder: Path) -> None:
    spec = read_folder(folder)
    names = {"0": "general", "5": "species"}
    assert spec.tags == tuple(Tag(name, names[number]) for name, number, _ in tiny.hydra_labels())
    assert set(spec.implied) == {("fox", "canine"), ("fox", "mammal"), ("wolf", "canine")}
    assert dataclasses.replace(spec, implied=()).identity() == spec.identity()


def test_the_table_is_found_beside_the_folder_of_the_weights_as_in_the_repository(tmp_path: Path) -> None:
    tiny.write_jtp3(tmp_path / "models")
    (tmp_path / "data").mkdir()
    (tmp_path / "models" / "jtp-3-hydra-tags.csv").rename(tmp_path / "data" / "jtp-3-hydra-tags.csv")
    assert read_folder(tmp_path / "models").tags[4] == Tag("wolf", "species")


def test_newer_names_of_the_tensors_of_jtp3_are_read(tmp_path: Path) -> None:
    folder = tiny.write_jtp3(tmp_path / "jtp3")
    before = probabilities(read_folder(folder), PICTURES["small"])

    def renew(tensors: Tensors) -> None:
        for old, new in (("ff_in.", "ff.proj_in."), ("ff_out.", "ff.proj_out."), ("ff_norm.", "ff.norm.")):
            for name in [name for name in tensors if name.startswith(f"attn_pool.{old}")]:
                tensors[name.replace(old, new)] = tensors.pop(name)
        tensors["head.proj.weight"] = tensors.pop("attn_pool.out_proj.weight").transpose(1, 2)

    change_weights(folder, renew)
    assert torch.equal(probabilities(read_folder(folder), PICTURES["small"]), before)


def test_tensors_that_do_not_fit_are_named(copied: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        del tensors["blocks.1.norm2.bias"]
        tensors["stray"] = torch.zeros(1)
        tensors["attn_pool.kv.weight"] = torch.zeros(5, 32)

    change_weights(copied, spoil)
    message = (
        r"missing: body\.blocks\.1\.norm2\.bias; unexpected: stray; "
        r"of another shape: attn_pool\.kv\.weight is \(5, 32\) and should be \(64, 32\)"
    )
    with pytest.raises(ModelError, match=message):
        probabilities(read_folder(copied), PICTURES["small"])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"classifier_background": "pink"}, r"classifier\.background is 'pink' in the header, and known are black"),
        ({"classifier_resize": "nearest"}, r"classifier\.resize is 'nearest' in the header, and known are lanczos"),
        ({"classifier_labels": ""}, r"has no classifier\.labels in its header"),
        ({"classifier_labels": "a\nb"}, r"lists 2 tags, and attn_pool\.q of .* is for 20"),
        ({"classifier_labels": "a\na"}, r"has 'a' more than once"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, texts: dict[str, str], message: str) -> None:
    folder = tiny.write_jtp3(tmp_path / "jtp3")
    change_header(folder, **texts)
    with pytest.raises(ModelError, match=message):
        read_folder(folder)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((512, 512), (32, 32)),
        ((4000, 3000), (27, 36)),
        ((640, 427), (26, 39)),
        ((100, 50), (3, 6)),
        ((5, 5), (1, 1)),
        ((40_000, 16), (1, 1024)),
    ],
)
def test_the_grid_has_the_most_patches_that_fit(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert patch_grid(*size, 1024) == grid_of(*size) == grid
