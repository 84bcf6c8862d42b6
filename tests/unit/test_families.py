"""Families of taggers against formulas and Pillow's steps, written here independently of the adapters.

Where the body is timm's own, it is built here from timm too, with the tensors renamed by hand.
"""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as f

from db.errors import ModelError
from db.ledger.models import Tag
from tests.fixtures import tiny_families as tiny
from tests.fixtures.checkpoints import TAGS, write_wd
from tests.fixtures.formulas import Tensors, attention, below, linear, norm, over_white, tensor
from tests.fixtures.pictures_of_families import pictures
from workers.images.decode import Decoder
from workers.inference.infer import Inferencer
from workers.inference.tensor_names import translated
from workers.models.folder import read_folder
from workers.models.key_map import KeyMap
from workers.models.preprocess_file import preprocess_fields
from workers.models.spec import ModelSpec
from workers.models.stages import Stage
from workers.options import Options

PICTURES = pictures()
Writer = Callable[[Path], Path]


def probabilities(spec: ModelSpec, *files: bytes) -> torch.Tensor:
    decoder = Decoder(spec, 20_000_000)
    inferencer = Inferencer(spec, Options(batch_size=len(files), device="cpu"), floor=0)
    return inferencer.probabilities([decoder.decode(file) for file in files])


def weights_of(folder: Path) -> Tensors:
    return load_file(weight_file(folder))


def weight_file(folder: Path) -> Path:
    return next(path for path in folder.glob("*.safetensors") if path.name != "text_features.safetensors")


def timm_body(architecture: str, classes: int, weights: Tensors, **model_args: Any) -> torch.nn.Module:
    body: torch.nn.Module = timm.create_model(architecture, pretrained=False, num_classes=classes, **model_args)
    body.load_state_dict(weights)
    return body.eval()


# ── the probabilities of a picture, by the description of each family ──


def pixai09(folder: Path) -> Callable[[bytes], torch.Tensor]:
    renamed = {
        name.replace("1.head.0.", "head.") if name.startswith("1.") else name[2:]: value
        for name, value in weights_of(folder).items()
    }
    body = timm_body("eva02_large_patch14_448", 14, renamed, **tiny.EVA02)
    return lambda data: body(tensor(over_white(data).resize((28, 28), Image.Resampling.BILINEAR))[None])[0].sigmoid()


def joytag(folder: Path) -> Callable[[bytes], torch.Tensor]:
    w = weights_of(folder)

    def stem(x: torch.Tensor) -> torch.Tensor:
        for index in range(5):
            layer = below(w, f"patch_embeddings.conv.{3 * index}.")
            x = f.conv2d(
                x[None], layer["weight"], layer["bias"], stride=1 if index == 4 else 2, padding=int(index != 4)
            )[0]
            if index < 4:
                x = norm(x.permute(1, 2, 0), w, f"patch_embeddings.conv.{3 * index + 1}.norm", 1e-5)
                x = x.permute(2, 0, 1).relu()
        return x

    def one(data: bytes) -> torch.Tensor:
        image = opened(data).convert("RGB")
        square = Image.new("RGB", (max(image.size),) * 2, "white")
        square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        x = stem(tensor(square.resize((64, 64), Image.Resampling.BICUBIC), mean, std))
        width, rows, columns = x.shape
        places = torch.empty(rows, columns, width)
        for i in range(width // 4):
            frequency = 10_000 ** (-i / (width / 4 - 1))
            for quarter, (place, wave) in enumerate([(1, torch.sin), (1, torch.cos), (0, torch.sin), (0, torch.cos)]):
                at = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))[place]
                places[..., quarter * width // 4 + i] = wave(at * frequency)
        x = (x.permute(1, 2, 0) + places).flatten(0, 1)
        for index in range(2):
            part = below(w, f"blocks.{index}.")
            qkv = linear(norm(x, part, "norm1", 1e-5), part, "qkv_proj").chunk(3, -1)
            x = x + linear(attention(*qkv, heads=4), part, "out_proj") * part["skip_init1.skip"]
            inner = f.gelu(linear(norm(x, part, "norm2", 1e-5), part, "mlp.linear1"))
            x = x + linear(inner, part, "mlp.linear2") * part["skip_init2.skip"]
        return linear(norm(x, w, "norm", 1e-5).mean(0), w, "head")[:11].sigmoid()

    return one


def animetimm(folder: Path) -> Callable[[bytes], torch.Tensor]:
    args = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64}
    body = timm_body("vit_tiny_patch16_224", 15, weights_of(folder), **args)

    def one(data: bytes) -> torch.Tensor:
        image = over_white(data)
        scale = min(72 / image.width, 72 / image.height)
        small = image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BILINEAR
        )
        canvas = Image.new("RGB", (72, 72), "white")
        canvas.paste(small, ((72 - small.width) // 2, (72 - small.height) // 2))
        pixels = tensor(canvas.resize((64, 64), Image.Resampling.BICUBIC), (0.5, 0.45, 0.4), (0.2, 0.25, 0.3))
        return body(pixels[None])[0].sigmoid()

    return one


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def fitted(image: Image.Image, size: int, filter_: Image.Resampling, fill: tuple[int, int, int]) -> Image.Image:
    """Sides rounded down, at least one pixel; centred on a canvas of a colour."""
    scale = min(size / image.width, size / image.height)
    small = image.resize([max(1, int(side * scale)) for side in image.size], filter_)
    canvas = Image.new("RGB", (size, size), fill)
    canvas.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return canvas


def vit_block(x: torch.Tensor, w: Tensors, heads: int) -> torch.Tensor:
    qkv = linear(norm(x, w, "norm1", 1e-6), w, "attn.qkv").chunk(3, -1)
    x = x + linear(attention(*qkv, heads=heads), w, "attn.proj")
    return x + linear(f.gelu(linear(norm(x, w, "norm2", 1e-6), w, "mlp.fc1")), w, "mlp.fc2")


def camie(folder: Path) -> Callable[[bytes], torch.Tensor]:
    w = weights_of(folder)
    body = below(w, "backbone.vit.")

    def one(data: bytes) -> torch.Tensor:
        image = fitted(over_white(data), 64, Image.Resampling.LANCZOS, (124, 116, 104))
        x = f.conv2d(tensor(image, *IMAGENET)[None], body["patch_embed.proj.weight"], body["patch_embed.proj.bias"], 16)
        x = torch.cat([body["cls_token"][0], x[0].flatten(1).T]) + body["pos_embed"][0]
        for index in range(2):
            x = vit_block(x, below(body, f"blocks.{index}."), 4)
        x = norm(x, body, "norm", 1e-6)
        patches, e = x[1:], w["tag_embedding.weight"]
        logits = e @ (patches.mean(0) + x[0]) / 2 + w["tag_bias"]
        best = logits.argsort(descending=True)[:8]
        in_weights, in_bias = w["cross_attention.in_proj_weight"].chunk(3), w["cross_attention.in_proj_bias"].chunk(3)
        sources = (e[best], patches, patches)
        q, k, v = (one @ weight.T + bias for one, weight, bias in zip(sources, in_weights, in_bias, strict=True))
        refined = norm(linear(attention(q, k, v, heads=4), w, "cross_attention.out_proj"), w, "cross_norm", 1e-5)
        logits[best] = (refined * e[best]).sum(-1)
        return logits.sigmoid()

    return one


def pixai10(folder: Path) -> Callable[[bytes], torch.Tensor]:
    w = weights_of(folder)

    def attended(x: torch.Tensor, part: Tensors, side: int) -> torch.Tensor:
        """Of a square of tokens, by complex numbers."""
        at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1) * (4 / side)
        frequencies = 10_000.0 ** (-4 * torch.arange(4) / 16)
        turns = torch.exp(1j * torch.cat([at[1][:, None] * frequencies, at[0][:, None] * frequencies], 1))
        q, k, v = linear(norm(x, part, "norm1", 1e-5), part, "attn.qkv").chunk(3, -1)

        def turned(one: torch.Tensor) -> torch.Tensor:
            pairs = torch.view_as_complex(one.reshape(len(one), 2, 8, 2).contiguous()) * turns[:, None]
            return torch.view_as_real(pairs).flatten(1)

        return linear(attention(turned(q), turned(k), v, heads=2), part, "attn.proj")

    def one(data: bytes) -> torch.Tensor:
        image = fitted(over_white(data), 112, Image.Resampling.BILINEAR, (0, 0, 0))
        x = f.conv2d(tensor(image)[None], w["patch_embed.proj.weight"], stride=14)[0].permute(1, 2, 0)
        x = norm(x + w["pos_embed"][0, 1:].view(4, 4, -1).repeat(2, 2, 1), w, "ln_pre", 1e-5)
        for index in range(2):
            part = below(w, f"blocks.{index}.")
            if index == 1:
                x = x + attended(x.flatten(0, 1), part, 8).view(x.shape)
            else:
                x = x.clone()
                for top in (0, 4):
                    for left in (0, 4):
                        square = x[top : top + 4, left : left + 4]
                        square += attended(square.flatten(0, 1), part, 4).view(square.shape)
            x = x + linear(f.gelu(linear(norm(x, part, "norm2", 1e-5), part, "mlp.fc1")), part, "mlp.fc2")
        pool = below(w, "head_pool.")
        k, v = linear(norm(x.flatten(0, 1), pool, "norm", 1e-5) + pool["pos_embed"], pool, "kv").chunk(2, -1)
        return linear(linear(attention(pool["q"][None], k, v, heads=2), pool, "proj"), w, "head")[0].sigmoid()

    return one


def ram(folder: Path) -> Callable[[bytes], torch.Tensor]:
    w = weights_of(folder)
    renamed = {}
    for name, value in below(w, "visual_encoder.").items():
        parts = name.split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) + 1)
        if parts[-1] not in {"relative_position_index", "attn_mask"}:
            renamed[".".join(parts)] = value
    body = timm_body("swin_large_patch4_window12_384", 0, renamed, img_size=64, **tiny.RAM_ARGS)
    labels, scale = w["label_embed"].view(7, 51, -1), w.get("reweight_scale", torch.tensor(1 / 0.07).log()).exp()

    def one(data: bytes) -> torch.Tensor:
        image = opened(data).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
        tokens = body.forward_features(tensor(image, *IMAGENET)[None])[0].flatten(0, 1)
        v = linear(torch.cat([tokens.mean(0, keepdim=True), tokens]), w, "image_proj")
        queries = [label.T @ (scale * (label @ (v[0] / v[0].norm()))).softmax(0) for label in labels]
        h = linear(torch.stack(queries), w, "wordvec_proj").relu()
        for index in range(2):
            part = below(w, f"tagging_head.encoder.layer.{index}.")
            cross = below(part, "crossattention.")
            found = attention(
                linear(h, cross, "self.query"), linear(v, cross, "self.key"), linear(v, cross, "self.value"), 4
            )
            h = norm(h + linear(found, cross, "output.dense"), cross, "output.LayerNorm", 1e-12)
            inner = f.gelu(linear(h, part, "intermediate.dense"))
            h = norm(h + linear(inner, part, "output.dense"), part, "output.LayerNorm", 1e-12)
        return linear(h, w, "fc")[:, 0].sigmoid()

    return one


def zero_shot(folder: Path) -> Callable[[bytes], torch.Tensor]:
    weights, text = load_file(folder / "model.safetensors"), load_file(folder / "text_features.safetensors")
    siglip = "logit_bias" in text
    size = 28 if siglip else 32
    if siglip:
        tower = timm_body("vit_so400m_patch14_siglip_384", 0, below(weights, "visual.trunk."), **tiny.TOWER_ARGS)
    else:
        tower = timm_body("vit_base_patch16_clip_224", 20, weights, **tiny.TOWER_ARGS | {"img_size": 32})

    def one(data: bytes) -> torch.Tensor:
        image = over_white(data) if opened(data).mode == "RGBA" else opened(data).convert("RGB")
        feature = tower(tensor(image.resize((size, size), Image.Resampling.BICUBIC))[None])[0]
        nearness = text["text_features"] @ feature / (text["text_features"].norm(dim=1) * feature.norm())
        logits = text["logit_scale"].exp() * nearness
        if siglip:
            return (logits + text["logit_bias"]).sigmoid()
        negative = text["negative_features"]
        other = text["logit_scale"].exp() * (negative @ feature) / (negative.norm() * feature.norm())
        return torch.stack([logits, other.expand(9)]).softmax(0)[0]

    return one


def taggerine(folder: Path) -> Callable[[bytes], torch.Tensor]:
    w = weights_of(folder)
    embeddings = below(w, "backbone.embeddings.")
    periods = 100 ** (2 * torch.arange(8) / 16)

    def one(data: bytes) -> torch.Tensor:
        image = opened(data).convert("RGB")
        long = 16 * max(1, min(max(image.size), 128) // 16)
        sides = [16 * max(1, round(side * long / max(image.size)) // 16) for side in image.size]
        pixels = tensor(image.resize(sides, Image.Resampling.LANCZOS), *IMAGENET)
        x = f.conv2d(pixels[None], embeddings["patch_embeddings.weight"], embeddings["patch_embeddings.bias"], 16)[0]
        y_of, x_of = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in x.shape[1:])
        at = torch.stack(torch.meshgrid(y_of, x_of, indexing="ij"), -1).view(-1, 2, 1)
        angles = torch.cat([torch.zeros(5, 16), (2 * torch.pi * 2 * at / periods).flatten(1)])
        turns = torch.exp(1j * angles)

        def turned(one: torch.Tensor) -> torch.Tensor:
            heads = [torch.complex(*head.chunk(2, -1)) * turns for head in one.chunk(2, -1)]
            return torch.cat([part for head in heads for part in (head.real, head.imag)], -1)

        x = torch.cat([embeddings["cls_token"][0], embeddings["register_tokens"][0], x.flatten(1).T])
        for index in range(3):
            part = below(w, f"backbone.model.layer.{index}.")
            y = norm(x, part, "norm1", 1e-5)
            q, k, v = (linear(y, part, f"attention.{name}_proj") for name in "qkv")
            found = linear(attention(turned(q), turned(k), v, heads=2), part, "attention.o_proj")
            x = x + part["layer_scale1.lambda1"] * found
            y = norm(x, part, "norm2", 1e-5)
            inner = f.silu(linear(y, part, "mlp.gate_proj")) * linear(y, part, "mlp.up_proj")
            x = x + part["layer_scale2.lambda1"] * linear(inner, part, "mlp.down_proj")
        return linear(norm(x, w, "backbone.norm", 1e-5)[:5].flatten(), w, "projection").sigmoid()

    return one


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


FAMILIES: dict[str, tuple[Writer, Callable[[Path], Callable[[bytes], torch.Tensor]]]] = {
    "pixai09": (tiny.write_pixai09, pixai09),
    "joytag": (tiny.write_joytag, joytag),
    "animetimm": (tiny.write_animetimm, animetimm),
    "camie": (tiny.write_camie, camie),
    "pixai10": (tiny.write_pixai10, pixai10),
    "taggerine": (tiny.write_taggerine, taggerine),
    "siglip": (tiny.write_siglip, zero_shot),
    "clip": (tiny.write_clip, zero_shot),
    "ram": (tiny.write_ram, ram),
    "ram without a scale": (lambda folder: tiny.write_ram(folder, scale=False), ram),
}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[request.param][0](tmp_path_factory.mktemp("models") / request.param)


@torch.inference_mode()
def test_probabilities_are_those_of_the_formulas_for_every_kind_of_picture(folder: Path) -> None:
    spec = read_folder(folder)
    found = probabilities(spec, *PICTURES.values())
    one = FAMILIES[folder.name][1](folder)
    wanted = torch.stack([one(data) for data in PICTURES.values()])
    assert wanted.std(dim=0).min() > 0.001
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_bf16_gives_about_the_same(folder: Path) -> None:
    """Layers in fp32 and in a lower precision meet without an error."""
    spec, data = read_folder(folder), PICTURES["small"]
    decoded = [Decoder(spec, 20_000_000).decode(data)]
    options = Options(batch_size=1, device="cpu", precision="bf16")
    found = Inferencer(spec, options, floor=0).probabilities(decoded)
    torch.testing.assert_close(found, probabilities(spec, data), atol=0.05, rtol=0)


def test_tensors_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    """One is missing, one is there in addition, one has another shape."""
    copied = Path(shutil.copytree(folder, tmp_path / folder.name))
    path = weight_file(copied)
    tensors = load_file(path)
    missing, misshapen, *_ = [name for name in tensors if name.endswith("norm1.bias")]
    del tensors[missing]
    tensors[misshapen] = torch.zeros(3)
    tiny.save(path, tensors | {"stray": torch.zeros(1)})
    message = (
        r"missing: \S*norm1\.bias; unexpected: (body\.)?stray; of another shape: \S*norm1\.bias is \(3,\) and should be"
    )
    with pytest.raises(ModelError, match=message):
        probabilities(read_folder(copied), PICTURES["small"])


# ── tags ──


def test_pixai_keeps_an_empty_name_and_the_series_of_characters(tmp_path: Path) -> None:
    spec = read_folder(tiny.write_pixai09(tmp_path))
    assert [tag.name for tag in spec.tags] == tiny.PIXAI_TAGS
    assert [tag.category for tag in spec.tags] == ["general"] * 10 + ["character"] * 4
    assert (
        spec.implied == (("dragon", "first_series"), ("dragon", "second_series"))
        or spec.implied[0][0] == tiny.PIXAI_TAGS[11]
    )


def test_camie_has_the_categories_of_its_metadata(tmp_path: Path) -> None:
    spec = read_folder(tiny.write_camie(tmp_path))
    assert spec.tags[2:4] == (Tag(TAGS[2], "general"), Tag(TAGS[3], "character"))
    assert (spec.size, len(spec.tags), spec.default_threshold) == (64, 30, 0.614)


def test_pixai_v1_has_the_categories_of_its_split(tmp_path: Path) -> None:
    spec = read_folder(tiny.write_pixai10(tmp_path))
    assert [tag.category for tag in spec.tags] == ["general"] * 7 + ["character"] * 3 + ["style"] * 2


def test_a_split_of_pixai_v1_that_does_not_fit_the_list_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_pixai10(tmp_path)
    tiny.change(folder / "config.json", tags_split=[["general", 11]])
    with pytest.raises(ModelError, match="tags_split counts 11 tags, and tags lists 12"):
        read_folder(folder)


def test_metadata_of_camie_with_a_gap_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_camie(tmp_path)
    mapping = {"idx_to_tag": {"0": "a", "2": "b"}, "tag_to_category": {}}
    tiny.change(folder / "camie-tagger-v2-metadata.json", dataset_info={"tag_mapping": mapping})
    with pytest.raises(ModelError, match=r"with idx_to_tag from 0 on\. It lacks '1'"):
        read_folder(folder)


def test_a_list_of_ram_for_another_head_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_ram(tmp_path)
    (folder / "ram_tag_list.txt").write_text("a\nb\n")
    with pytest.raises(ModelError, match=r"ram_tag_list\.txt lists 2 tags, and label_embed of \S+ is for 7"):
        read_folder(folder)


def test_the_matrix_of_a_zero_shot_tagger_is_part_of_its_identity(tmp_path: Path) -> None:
    folder = tiny.write_siglip(tmp_path)
    before = read_folder(folder)
    path = folder / "text_features.safetensors"
    tiny.save(path, load_file(path) | {"logit_bias": torch.tensor(0.0)})
    assert read_folder(folder).identity() != before.identity()
    with pytest.raises(ModelError, match=r"text_features\.safetensors changed while it was in use"):
        probabilities(before, PICTURES["small"])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"text_features": (9, 48), "logit_scale": ()}, "and has logit_scale, text_features"),
        ({"text_features": (8, 48), "logit_scale": (), "logit_bias": ()}, r"lists 9 tags, and .* is \(8, 48\)"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(tmp_path: Path, tensors: tiny.Shapes, message: str) -> None:
    folder = tiny.write_siglip(tmp_path)
    tiny.save(folder / "text_features.safetensors", tiny.random_tensors(tensors, 1))
    with pytest.raises(ModelError, match=message):
        read_folder(folder)


def test_taggerine_has_the_categories_of_e621(tmp_path: Path) -> None:
    spec = read_folder(tiny.write_taggerine(tmp_path))
    assert (spec.tags[3], spec.tags[4], spec.tags[12]) == (Tag("fox", "species"), Tag("wolf", "general"), Tag(TAGS[12]))


def test_joytag_leaves_out_rows_of_older_files_that_have_no_tags(tmp_path: Path) -> None:
    spec = read_folder(tiny.write_joytag(tmp_path, ratings=9))
    assert [tag.name for tag in spec.tags] == list(TAGS[:11])
    assert probabilities(spec, PICTURES["small"]).shape == (1, 11)


def test_a_list_of_joytag_for_another_head_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_joytag(tmp_path, ratings=2)
    with pytest.raises(
        ModelError, match=r"top_tags\.txt lists 11 tags, and head\.weight of model\.safetensors is for 13"
    ):
        read_folder(folder)


def test_a_stem_of_joytag_that_is_not_known_is_named(tmp_path: Path) -> None:
    folder = tiny.write_joytag(tmp_path)
    tiny.change(folder / "config.json", cnn_stem="conv:c=8,dilation=2")
    with pytest.raises(ModelError, match=r"cnn_stem has 'dilation=2'"):
        read_folder(folder)


def test_categories_of_e621_have_their_own_names(tmp_path: Path) -> None:
    names = {0: "general", 4: "character", 5: "species"}
    spec = read_folder(tiny.write_animetimm(tmp_path))
    assert spec.tags == tuple(Tag(name, names[number]) for name, number in tiny.E621_ROWS)


def test_classes_of_imagenet_21k_are_named_by_wordnet(tmp_path: Path) -> None:
    spec = read_folder(tiny.write_in21k(tmp_path))
    assert (spec.activation, spec.head, len(spec.tags)) == ("sigmoid", "linear", 21843)
    assert spec.tags[0] == Tag("organism")
    assert len({tag.name for tag in spec.tags}) == 21843
    assert {"crane_(n02012849)", "crane_(n03126707)"} <= {tag.name for tag in spec.tags}


def test_weights_of_a_softmax_get_no_classes_of_imagenet_21k(tmp_path: Path) -> None:
    folder = tiny.write_in21k(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"]["tag"] = "miil_in21k"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="names no labels"):
        read_folder(folder)


# ── steps of preprocess.json ──


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"type": "sharpen"}, r"the step 'sharpen' is not known \(known: pad_to_size, resize"),
        ({"type": "resize", "size": 64, "max_size": 90}, r"without max_size"),
        ({"type": "resize", "size": 64, "antialias": False}, r"with antialias"),
        ({"type": "resize", "size": "big"}, r"the size of 'resize' is 'big'"),
        ({"type": "resize", "size": 64, "interpolation": "mitchell"}, r"interpolation 'mitchell' is not known"),
        ({"type": "pad_to_size", "size": 64, "background_color": "reddish"}, r"background_color is 'reddish'"),
        ({"type": "normalize", "mean": [0.5], "std": [1, 1, 1]}, r"mean of 'normalize' is \[0\.5\]"),
    ],
)
def test_a_step_that_is_not_supported_is_named(tmp_path: Path, step: dict[str, Any], message: str) -> None:
    path = tmp_path / "preprocess.json"
    path.write_text(json.dumps({"test": [{"type": "resize", "size": [64, 64]}, step]}))
    with pytest.raises(ModelError, match=message):
        preprocess_fields(path)


def test_a_size_of_one_number_is_the_short_side_unless_the_size_before_is_fixed(tmp_path: Path) -> None:
    path = tmp_path / "preprocess.json"
    steps = [{"type": "resize", "size": 70}, {"type": "center_crop", "size": 64}, {"type": "resize", "size": 32}]
    path.write_text(json.dumps(steps))
    found = preprocess_fields(path)
    assert found["stages"] == (Stage("short", (70, 70)), Stage("crop", (64, 64)), Stage("resize", (32, 32)))
    assert (found["size"], found["background"]) == (32, (1.0, 1.0, 1.0))


def test_a_list_as_of_wd_with_steps_is_not_read_as_bgr(tmp_path: Path) -> None:
    folder = write_wd(tmp_path)
    (folder / "preprocess.json").write_text(json.dumps({"test": tiny.STEPS}))
    spec = read_folder(folder)
    assert (spec.family, spec.channel_order, spec.resize) == ("timm", "RGB", "stages")


def test_what_model_json_states_about_the_resize_replaces_the_steps(tmp_path: Path) -> None:
    folder = tiny.write_animetimm(tmp_path)
    (folder / "model.json").write_text('{"resize": "timm"}')
    assert read_folder(folder).stages == ()


# ── names of tensors ──


def test_rules_of_a_key_map_are_applied_in_their_order() -> None:
    numbers = torch.arange(6.0).view(2, 3)
    weights = {f"layer.0.{one}_proj.weight": numbers + index for index, one in enumerate("qkv")}
    weights |= {"layer.0.mask": numbers, "table": numbers, "tail": numbers}
    keys = KeyMap(
        drops=(r".*\.mask",),
        renames=((r"^layer\.", "blocks."), (r"\.([qkv])_proj\.", r".attn.\1."), ("^tail$", "end"), ("^end$", "head")),
        swaps=("table",),
        rows=(("head", 1),),
        joins=(((".attn.q.weight", ".attn.k.weight", ".attn.v.weight"), ".attn.qkv.weight"),),
    )
    found = translated(weights, keys)
    assert set(found) == {"blocks.0.attn.qkv.weight", "table", "head"}
    assert torch.equal(found["blocks.0.attn.qkv.weight"], torch.cat([numbers, numbers + 1, numbers + 2]))
    assert torch.equal(found["table"], numbers.T)
    assert torch.equal(found["head"], numbers[:1])


def test_two_tensors_of_one_name_are_refused() -> None:
    one = torch.zeros(1)
    with pytest.raises(ModelError, match=r"Two tensors of the weight file are a of the network, one of them b"):
        translated({"a": one, "b": one}, KeyMap(renames=(("b", "a"),)))
