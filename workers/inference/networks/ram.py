"""RAM++ (recognize-anything): a Swin of timm, and a head of two layers whose queries are descriptions of the tags.

From the formulas of the published head (xinyu1205/recognize-anything, Huang et al., Open-Set Image Tagging with
Multi-Grained Text Supervision, 2023).
"""

import torch
from torch import nn
from torch.nn import functional

from workers.inference.networks.body import timm_body
from workers.models.spec import ModelSpec

CHUNK = 1024
"""Tags whose queries are computed at once. They are independent of each other."""
_HEADS = 4
_LAYERS = 2
_EPS = 1e-12
_TEMPERATURE = 0.07
"""Of files without a scale of their own."""


class RamPlus(nn.Module):
    """Logits [N, T] of images [N, 3, S, S]."""

    label_embed: torch.Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        sizes = spec.head_args
        self.visual_encoder = timm_body(spec, num_classes=0, img_size=spec.size)
        self.descriptions = sizes["descriptions"]
        self.image_proj = nn.Linear(self.visual_encoder.num_features, sizes["embedding"])
        self.label_embed = nn.Parameter(torch.empty(len(spec.tags) * self.descriptions, sizes["embedding"]))
        scale = torch.tensor(1 / _TEMPERATURE).log()
        if sizes["has_scale"]:
            self.reweight_scale = nn.Parameter(scale)
        else:
            self.register_buffer("reweight_scale", scale, persistent=False)
        self.wordvec_proj = nn.Linear(sizes["embedding"], sizes["width"])
        layers = [_Layer(sizes["width"], sizes["embedding"], sizes["inner"]) for _ in range(_LAYERS)]
        self.layers = nn.ModuleList(layers)
        self.fc = nn.Linear(sizes["width"], 1)

    def get_classifier(self) -> nn.Module:
        """The last layer, as of timm's networks."""
        return self.fc

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.visual_encoder.forward_features(images).flatten(1, 2)
        values = self.image_proj(torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1))
        picture = functional.normalize(values[:, 0], dim=-1)
        labels = self.label_embed.view(-1, self.descriptions, self.label_embed.shape[1])
        parts = torch.split(labels, CHUNK)
        return torch.cat([self._logits(part, picture, values) for part in parts], dim=1)

    def _logits(self, labels: torch.Tensor, picture: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Logits of some tags, whose descriptions are [tags, descriptions, embedding]."""
        fits = self.reweight_scale.exp() * torch.einsum("ne,tke->ntk", picture, labels)
        weights = fits.float().softmax(dim=-1).to(labels.dtype)
        h = functional.relu(self.wordvec_proj(torch.einsum("ntk,tke->nte", weights, labels)))
        for layer in self.layers:
            h = layer(h, values)
        logits: torch.Tensor = self.fc(h)
        return logits.squeeze(-1)


class _Layer(nn.Module):
    """BERT's layer without attention among the queries."""

    def __init__(self, width: int, embedding: int, inner: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(embedding, width)
        self.value = nn.Linear(embedding, width)
        self.attended = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)

    def forward(self, h: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            one.view(*one.shape[:2], _HEADS, -1).transpose(1, 2)
            for one in (self.query(h), self.key(values), self.value(values))
        )
        found = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = self.norm1(h + self.attended(found))
        changed: torch.Tensor = self.norm2(h + self.fc2(functional.gelu(self.fc1(h))))
        return changed
