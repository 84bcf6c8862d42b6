"""PixAI tagger v1.0: the image trunk of SAM 3, and a pool with one query.

A vision transformer that attends in windows, and in some blocks to the whole picture, with rotary positions along both
axes (Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, 2022; facebookresearch/sam3).
"""

import math

import torch
from torch import nn
from torch.nn import functional

from workers.models.spec import ModelSpec

_EPS = 1e-5
_BASE = 10_000.0


class VitDet(nn.Module):
    """Logits [N, T] of images [N, 3, S, S]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        sizes = spec.head_args
        width, patch, heads, side = sizes["width"], sizes["patch"], sizes["heads"], sizes["positions"]
        self.grid = spec.size // patch
        self.patch_embed = _PatchEmbed(width, patch)
        # The first row is of a class token, which is not used.
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + side * side, width))
        self.ln_pre = nn.LayerNorm(width, eps=_EPS)
        whole = set(sizes["global_blocks"])
        windows = [self.grid if index in whole else sizes["window"] for index in range(sizes["depth"])]
        self.blocks = nn.ModuleList([_Block(width, heads, sizes["mlp"], window, side) for window in windows])
        self.head_pool = _Pool(width, heads, self.grid * self.grid)
        self.head = nn.Linear(width, len(spec.tags))

    def get_classifier(self) -> nn.Module:
        """The last layer, as of timm's networks."""
        return self.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(images).permute(0, 2, 3, 1)
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        table = self.pos_embed[:, 1:].view(1, side, side, -1)
        times = -(-self.grid // side)
        x = self.ln_pre(x + table.tile(1, times, times, 1)[:, : self.grid, : self.grid])
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(self.head_pool(x.flatten(1, 2)))
        return logits


class _PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches: torch.Tensor = self.proj(images)
        return patches


class _Block(nn.Module):
    """Attention within squares of `window` x `window` tokens, and a network of two layers."""

    def __init__(self, width: int, heads: int, mlp: int, window: int, positions: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = _Attention(width, heads, window, positions)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = _Mlp(width, mlp)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens [N, rows, columns, width]; rows and columns are multiples of the window."""
        count, rows, columns, width = x.shape
        size = self.window
        squares = self.norm1(x).view(count, rows // size, size, columns // size, size, width).transpose(2, 3)
        attended = self.attn(squares.reshape(-1, size * size, width))
        attended = attended.view(count, rows // size, columns // size, size, size, width).transpose(2, 3)
        x = x + attended.reshape(x.shape)
        changed: torch.Tensor = x + self.mlp(self.norm2(x))
        return changed


class _Attention(nn.Module):
    """Attention whose queries and keys are turned by their places."""

    turns: torch.Tensor

    def __init__(self, width: int, heads: int, window: int, positions: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.register_buffer("turns", _turns(window, positions / window, width // heads), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, length, width = x.shape
        q, k, v = self.qkv(x).view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(self._turned(q), self._turned(k), v)
        out: torch.Tensor = self.proj(y.transpose(1, 2).reshape(count, length, width))
        return out

    def _turned(self, x: torch.Tensor) -> torch.Tensor:
        """Pairs (2i, 2i + 1) of the last axis, as complex numbers times the turns of the tokens, in fp32."""
        even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # type: ignore[no-untyped-call]  # torch's stubs
        cosine, sine = self.turns.float().unbind(-1)
        turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
        return turned.flatten(-2).to(x.dtype)


def _turns(side: int, scale: float, width: int) -> torch.Tensor:
    """Cosine and sine of the angles of the tokens of a square: [side * side, width / 2, 2].

    The first half of the pairs turns by the column, the other by the row.
    """
    frequencies = _BASE ** (-4 * torch.arange(width // 4) / width)
    place = torch.arange(side) * scale
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    angles = torch.cat([at.reshape(-1, 1) * frequencies for at in (columns, rows)], dim=1)
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


class _Mlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return y


class _Pool(nn.Module):
    """Attention of one query, the same for all pictures, to the tokens [N, L, width]."""

    def __init__(self, width: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.q = nn.Parameter(torch.empty(width))
        self.kv = nn.Linear(width, 2 * width)
        self.pos_embed = nn.Parameter(torch.empty(tokens, width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, length, width = x.shape
        keys, values = (
            self.kv(self.norm(x) + self.pos_embed).view(count, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        query = self.q.view(1, self.heads, 1, -1).expand(count, -1, -1, -1)
        features: torch.Tensor = self.proj(
            functional.scaled_dot_product_attention(query, keys, values).reshape(count, width)
        )
        return features
