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
    ],
    ids=["JTP-3", "Hydra 3.5"],
)
def test_parameters_are_as_many_as_published(
    spec: ModelSpec, fields: dict[str, object], tags: int, tensors: int, parameters: int
) -> None:
    spec = dataclasses.replace(spec, tags=tuple(map(Tag, map(str, range(tags)))), **fields)  # type: ignore[arg-type]
    with torch.device("meta"):
        state = build_backbone(spec).state_dict()
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (tensors, parameters)
