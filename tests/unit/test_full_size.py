"""Networks of families at their full size, on torch's meta device: as many parameters as were published."""

import dataclasses
from pathlib import Path

import pytest
import torch

from db.ledger.models import Tag
from workers.inference.network import build_backbone
from workers.models.spec import ModelSpec

NONE = ModelSpec(name="m", family="none", architecture="none", tags=(), weights=Path("none"), size=1)
HYDRA = dataclasses.replace(
    NONE, architecture="naflexvit_so400m_patch16_siglip", size=512, resize="patches", background=(0.0,) * 3
)


PIXAI09 = dataclasses.replace(NONE, architecture="eva02_large_patch14_448", size=448)
STEM = [{"c": channels, "k": 3, "s": 2, "p": 1} for channels in (64, 128, 256, 512)] + [
    {"c": 768, "k": 1, "s": 1, "p": 0}
]
JOYTAG = dataclasses.replace(
    NONE,
    architecture="vit_base_patch16_224",
    network="joytag",
    size=448,
    model_args={"embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4.0, "img_size": 448},
    head_args={"stem": STEM},
)
CAMIE = dataclasses.replace(
    NONE,
    architecture="vit_base_patch16_384",
    network="camie",
    size=512,
    model_args={"img_size": 512},
    head_args={"heads": 16, "candidates": 256},
)
VITDET_ARGS = {
    "width": 1024,
    "depth": 32,
    "patch": 14,
    "mlp": 4736,
    "positions": 24,
    "heads": 16,
    "window": 24,
    "global_blocks": [7, 15, 23, 31],
}
VITDET = dataclasses.replace(NONE, architecture="sam3-vitdet", network="vitdet", size=1008, head_args=VITDET_ARGS)
RAM_ARGS = {"descriptions": 51, "embedding": 512, "width": 768, "inner": 3072, "has_scale": True}
RAM = dataclasses.replace(
    NONE, architecture="swin_large_patch4_window12_384", network="ram", size=384, head_args=RAM_ARGS
)
TAGGERINE = dataclasses.replace(
    NONE,
    architecture="vit_huge_plus_patch16_dinov3_qkvb",
    network="taggerine",
    size=1024,
    resize="snap",
    head_args={"has_bias": False},
)
CAFORMER = dataclasses.replace(NONE, architecture="caformer_b36", size=384)


# Taggerine's file has a mask token of 1,280 numbers in addition, which is not loaded.
@pytest.mark.parametrize(
    ("spec", "fields", "tags", "tensors", "parameters"),
    [
        (
            HYDRA,
            {"network": "hydra", "head_args": {"heads": 32, "head_width": 64, "inner": 6144}},
            7504,
            336,
            501225712,
        ),
        (
            HYDRA,
            {"network": "hydra2", "head_args": {"heads": 32, "head_width": 64, "inner": 5120}},
            8886,
            338,
            525068528,
        ),
        (PIXAI09, {}, 13461, None, 317852757),
        (JOYTAG, {}, 5813, None, 91491509),
        (CAFORMER, {}, 12476, None, 134019362),
        (CAMIE, {}, 70527, 158, 143033727),
        (VITDET, {}, 30877, 398, 486346909),
        (RAM, {}, 4585, None, 329493046),
        (TAGGERINE, {}, 74625, None, 1318192640 - 1280),
    ],
    ids=["JTP-3", "Hydra 3.5", "PixAI v0.9", "JoyTag", "animetimm", "Camie v2", "PixAI v1.0", "RAM++", "Taggerine"],
)
def test_parameters_are_as_many_as_published(
    spec: ModelSpec, fields: dict[str, object], tags: int, tensors: int | None, parameters: int
) -> None:
    spec = dataclasses.replace(spec, tags=tuple(map(Tag, map(str, range(tags)))), **fields)  # type: ignore[arg-type]
    with torch.device("meta"):
        state = build_backbone(spec).state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == parameters
    assert tensors in (None, len(state))
