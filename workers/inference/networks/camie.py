"""Camie tagger v2: every tag by its embedding, and the best of them again by attention to the picture.

From the description of the published network (Camais03/camie-tagger-v2).
"""

import torch
from torch import nn

from workers.inference.networks.body import timm_body
from workers.models.spec import ModelSpec


class Camie(nn.Module):
    """Logits [N, T] of images [N, 3, S, S]. Those of the best tags are replaced by refined ones."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.body = timm_body(spec, num_classes=0)
        width, tags = self.body.num_features, len(spec.tags)
        self.candidates = min(spec.head_args["candidates"], tags)
        self.head = nn.Linear(width, tags)
        self.cross_attention = nn.MultiheadAttention(width, spec.head_args["heads"], batch_first=True)
        self.cross_norm = nn.LayerNorm(width)

    def get_classifier(self) -> nn.Module:
        """The layer that computes in fp32: its rows are the embeddings of the tags."""
        return self.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.body.forward_features(images)
        patches = tokens[:, 1:]
        logits: torch.Tensor = self.head((patches.mean(1) + tokens[:, 0]) / 2)
        best = logits.topk(self.candidates, dim=1).indices
        embeddings = self.head.weight[best]
        attended, _ = self.cross_attention(embeddings.to(patches.dtype), patches, patches, need_weights=False)
        refined = (self.cross_norm(attended).float() * embeddings).sum(-1)
        return logits.scatter(1, best, refined)
