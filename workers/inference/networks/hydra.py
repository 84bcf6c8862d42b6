"""JTP-3 Hydra and Hydra 3.5: a NaFlex SO400M whose tokens each tag attends to with a query of its own.

The formulas are those of the released pools (RedRocket/Hydra), and give the same outputs.
"""

import torch
from torch import nn
from torch.nn import functional

from workers.inference.networks.body import timm_body
from workers.models.spec import ModelSpec

CHUNK = 1024
"""Tags whose pool is computed at once: all of them would take 180 MB for each picture."""
_EPS = 1e-5


class Hydra(nn.Module):
    """Logits of all tags.

    `forward`: float32 [N, 1 + L, 768] to [N, T]. Of each picture the first row begins with its rows and columns of
    patches. The normalised patches follow, row by row; those behind the last one mean nothing.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.body = timm_body(spec, num_classes=0, global_pool="")
        width, tags, sizes = self.body.num_features, len(spec.tags), spec.head_args
        newer = spec.network == "hydra2"
        self.attn_pool = (PoolOf35 if newer else PoolOfJtp3)(width, tags, **sizes)
        pooled = sizes["heads"] * sizes["head_width"]
        self.head = DotHead(tags, pooled) if newer else GatedDotHead(tags, pooled)

    def get_classifier(self) -> nn.Module:
        """The last layer, as of timm's networks."""
        return self.head

    def forward(self, packed: torch.Tensor) -> torch.Tensor:
        grids = packed[:, 0, :2]
        tokens, mask = self._tokens(grids, packed[:, 1:])
        keys_and_values = self.attn_pool.keys_and_values(tokens)
        tags = self.attn_pool.q.shape[1]
        chunks = [slice(first, first + CHUNK) for first in range(0, tags, CHUNK)]
        logits = [self.head(self.attn_pool(chunk, keys_and_values, mask), chunk) for chunk in chunks]
        return torch.cat(logits, dim=1)

    def _tokens(self, grids: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [N, L, F], and bool [N, 1, 1, L], true for those of the picture."""
        embeds = self.body.embeds
        number = torch.arange(patches.shape[1], device=patches.device)
        rows, columns = grids.long().unbind(1)
        mask = mask_of(rows, columns, number)
        x = embeds.proj(patches.to(embeds.proj.weight.dtype))
        x = x + _positions(embeds.pos_embed[0].float(), rows, columns, number).to(x.dtype)
        for block in self.body.blocks:
            x = block(x, attn_mask=mask)
        return self.body.norm(x), mask


def mask_of(rows: torch.Tensor, columns: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    """Bool [N, 1, 1, L], true for the numbers [L] of patches that pictures with rows and columns [N] have."""
    return (number < (rows * columns)[:, None])[:, None, None]


def _positions(table: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    """The table [S, S, F] resized to the grid of each picture, at its patches: [N, L, F].

    It is the antialiased bilinear interpolation of `torch.nn.functional.interpolate`, as products with the weights of
    both axes, because that function takes one size a call, and would wait for the device to know it.
    """
    side = table.shape[0]
    along_rows = _weights(number // columns[:, None], rows, side)
    along_columns = _weights(number % columns[:, None], columns, side)
    weights = (along_rows[..., :, None] * along_columns[..., None, :]).flatten(2)
    return weights @ table.flatten(0, 1)


def _weights(position: torch.Tensor, length: torch.Tensor, side: int) -> torch.Tensor:
    """Weights [N, L, side] of a table's entries at positions [N, L] of axes of some lengths [N]."""
    scale = (side / length.float())[:, None, None]
    support = scale.clamp(min=1.0)
    centre = (position[..., None] + 0.5) * scale
    entries = torch.arange(side, device=position.device) + 0.5
    weights = (1 - (entries - centre).abs() / support).clamp(min=0.0)
    # Padding is beyond the last row, where no entry has a weight.
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


KeysAndValues = tuple[torch.Tensor, torch.Tensor]


class _Pool(nn.Module):
    """What both pools have in common: queries of the tags, and keys and values of the tokens."""

    def __init__(self, width: int, tags: int, *, heads: int, head_width: int) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.empty(heads, tags, head_width))
        self.kv = nn.Linear(width, 2 * heads * head_width, bias=False)

    def keys_and_values(self, tokens: torch.Tensor) -> KeysAndValues:
        """Normalised keys and values of tokens [N, L, F]: [N, heads, L, head width] each."""
        keys, values = (_in_heads(one, self.q.shape[0]) for one in self.kv(tokens).chunk(2, dim=-1))
        return _rms(keys), values

    def attended(self, chunk: slice, keys_and_values: KeysAndValues, mask: torch.Tensor) -> torch.Tensor:
        """Attention of the tags of a chunk: [N, tags, heads * head width]."""
        keys, values = keys_and_values
        queries = self.q[None, :, chunk].expand(keys.shape[0], -1, -1, -1)
        return _attend(queries, keys, values, mask)


class PoolOfJtp3(_Pool):
    """Attention, then a SwiGLU network."""

    def __init__(self, width: int, tags: int, *, heads: int, head_width: int, inner: int) -> None:
        super().__init__(width, tags, heads=heads, head_width=head_width)
        self.ff = _SwiGlu(heads * head_width, inner)

    def forward(self, chunk: slice, keys_and_values: KeysAndValues, mask: torch.Tensor) -> torch.Tensor:
        """Features of the tags of a chunk: [N, tags, heads * head width]."""
        y = self.attended(chunk, keys_and_values, mask)
        changed: torch.Tensor = y + self.ff(y)
        return changed


class PoolOf35(_Pool):
    """Attention, a gated network, and a second attention to the same keys and values with a network of its own."""

    def __init__(self, width: int, tags: int, *, heads: int, head_width: int, inner: int) -> None:
        super().__init__(width, tags, heads=heads, head_width=head_width)
        self.ff = _SoftplusGlu(heads * head_width, inner)
        self.mid_blocks = nn.ModuleList([_MidBlock(heads * head_width, inner)])

    def forward(self, chunk: slice, keys_and_values: KeysAndValues, mask: torch.Tensor) -> torch.Tensor:
        """Features of the tags of a chunk: [N, tags, heads * head width]."""
        y = self.attended(chunk, keys_and_values, mask)
        y = y + self.ff(y)
        for block in self.mid_blocks:
            y = block(y, keys_and_values, mask)
        changed: torch.Tensor = y
        return changed


class _MidBlock(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.ff = _SoftplusGlu(width, inner)

    def forward(self, y: torch.Tensor, keys_and_values: KeysAndValues, mask: torch.Tensor) -> torch.Tensor:
        queries = _rms(_in_heads(self.q_proj(y), keys_and_values[0].shape[1]))
        y = y + self.o_proj(_attend(queries, *keys_and_values, mask))
        changed: torch.Tensor = y + self.ff(y)
        return changed


class _SwiGlu(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.proj_in = nn.Linear(width, 2 * inner, bias=False)
        self.proj_out = nn.Linear(inner, width, bias=False)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        gate, value = self.proj_in(self.norm(y)).chunk(2, dim=-1)
        out: torch.Tensor = self.proj_out(functional.silu(gate) * value)
        return out


class _SoftplusGlu(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(width, 2 * inner, bias=False)
        self.proj_out = nn.Linear(inner, width, bias=False)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        gate, value = self.proj_in(functional.layer_norm(y, y.shape[-1:], eps=_EPS)).chunk(2, dim=-1)
        out: torch.Tensor = self.proj_out(functional.softplus(gate) * value)
        return out


class _Weight(nn.Module):
    """A parameter with a name of two parts."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))


class GatedDotHead(nn.Module):
    """Two products of a tag's features with its weights; the logit is silu(first) * second."""

    def __init__(self, tags: int, width: int) -> None:
        super().__init__()
        self.proj = _Weight(tags, 2, width)

    def forward(self, y: torch.Tensor, chunk: slice) -> torch.Tensor:
        """Logits [N, tags of the chunk] of features [N, tags of the chunk, width]."""
        first, second = torch.einsum("ntw,tkw->knt", y, self.proj.weight[chunk]).unbind()
        return functional.silu(first) * second


class DotHead(nn.Module):
    """The product of a tag's features with its weights."""

    def __init__(self, tags: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tags, width))

    def forward(self, y: torch.Tensor, chunk: slice) -> torch.Tensor:
        """Logits [N, tags of the chunk] of features [N, tags of the chunk, width]."""
        return torch.einsum("ntw,tw->nt", y, self.weight[chunk])


def _in_heads(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """[N, L, heads * head width] as [N, heads, L, head width]."""
    return tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2)


def _rms(heads: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(heads, heads.shape[-1:], eps=_EPS)


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attention with heads concatenated: [N, queries, heads * head width]."""
    return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(1, 2).flatten(2)
