"""JoyTag: timm's vision transformer with a stem of convolutions and fixed positions (fpgaminer/joytag)."""

from functools import partial
from typing import Any

import torch
from torch import nn

from workers.inference.networks.body import timm_body
from workers.models.spec import ModelSpec

_EPS = 1e-5


def joytag(spec: ModelSpec) -> nn.Module:
    """The network for images [N, 3, S, S] to logits [N, T]."""
    body: nn.Module = timm_body(
        spec,
        num_classes=len(spec.tags),
        class_token=False,
        global_pool="avg",
        fc_norm=False,
        init_values=1.0,
        pos_embed="none",
        norm_layer=partial(nn.LayerNorm, eps=_EPS),
    )
    body.patch_embed = Stem(spec.head_args["stem"])
    return body


class Stem(nn.Module):
    """Convolutions with norms and ReLU between them, to tokens [N, L, D] with the sines of their places added.

    Args:
        layers: channels `c`, kernel `k`, stride `s` and padding `p` of each.
    """

    def __init__(self, layers: list[dict[str, int]]) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        channels = 3
        for layer in layers:
            if parts:
                parts += [_ChannelNorm(channels), nn.ReLU()]
            parts.append(nn.Conv2d(channels, layer["c"], layer["k"], layer["s"], layer["p"]))
            channels = layer["c"]
        self.conv = nn.Sequential(*parts)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.conv(images)
        return x.flatten(2).transpose(1, 2) + _sines(*x.shape[1:], device=x.device).to(x.dtype)


class _ChannelNorm(nn.Module):
    """Layer norm over the channels of each place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]  # torch's stubs


def _sines(width: int, rows: int, columns: int, *, device: Any) -> torch.Tensor:
    """Fixed positions [rows * columns, width]: sines and cosines of the column, then of the row."""
    quarter = width // 4
    frequencies = 10_000 ** (-torch.arange(quarter, device=device) / (quarter - 1))
    y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies for place in (x, y)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
