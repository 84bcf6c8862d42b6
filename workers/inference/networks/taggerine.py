"""Taggerine: DINOv3 of timm on any number of patches, and a linear head on its five first tokens."""

import math

import torch
from torch import nn
from torch.nn import functional

from workers.inference.networks.body import timm_body
from workers.inference.networks.hydra import mask_of
from workers.models.spec import ModelSpec

_STRETCH = 2.0
"""Factor of the rotary positions. In DINOv3 it belongs to the augmentation; the author's program applies it always."""


class Taggerine(nn.Module):
    """Logits of all tags.

    `forward`: float32 [N, 1 + L, 768], as of `workers.inference.networks.hydra`, to [N, T].
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.body = timm_body(spec, num_classes=0)
        self.prefix = self.body.num_prefix_tokens
        self.head = nn.Linear(self.prefix * self.body.num_features, len(spec.tags), bias=spec.head_args["has_bias"])

    def get_classifier(self) -> nn.Module:
        """The last layer, as of timm's networks."""
        return self.head

    def forward(self, packed: torch.Tensor) -> torch.Tensor:
        body, convolution = self.body, self.body.patch_embed.proj
        rows, columns = packed[:, 0, :2].long().unbind(1)
        number = torch.arange(packed.shape[1] - 1, device=packed.device)
        # The convolution as a product: a patch has its values by row, column and channel.
        weight = convolution.weight.permute(0, 2, 3, 1).flatten(1)
        x = functional.linear(packed[:, 1:].to(weight.dtype), weight, convolution.bias)
        first = torch.cat([body.cls_token, body.reg_token], dim=1).expand(x.shape[0], -1, -1)
        mask = functional.pad(mask_of(rows, columns, number), (self.prefix, 0), value=True)
        rope = self._positions(rows, columns, number)
        x = torch.cat([first, x], dim=1)
        for block in body.blocks:
            x = block(x, rope=rope, attn_mask=mask)
        logits: torch.Tensor = self.head(body.norm(x[:, : self.prefix]).flatten(1))
        return logits

    def _positions(self, rows: torch.Tensor, columns: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        """Sines, then cosines, of the angles of each patch: [N, 1, L, 2 * head width].

        The coordinates are those of DINOv3: the centre of a patch, from -1 to 1 along each axis.
        """
        places = (number // columns[:, None], number % columns[:, None])
        along = [2 * (place + 0.5) / length[:, None] - 1 for place, length in zip(places, (rows, columns), strict=True)]
        turns = torch.stack(along, dim=-1)[..., None] / self.body.rope.periods
        angles = (_STRETCH * 2 * math.pi * turns).flatten(2).repeat(1, 1, 2)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, None]
