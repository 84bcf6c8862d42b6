"""Zero-shot taggers: how near the embedding of a picture is to the text embedding of each tag.

SigLIP   p = sigmoid(scale <f, t> + bias)                  (Zhai et al., Sigmoid Loss for Language Image
Pre-Training, 2023)
CLIP     p = softmax(scale <f, t>, scale <f, negative>)    (Radford et al., Learning Transferable Visual Models
From Natural Language Supervision, 2021)
"""

import torch
from torch import nn
from torch.nn import functional

from workers.inference.networks.body import timm_body
from workers.models.spec import ModelSpec


class TextMatrix(nn.Module):
    """Logits [N, T] of images [N, 3, S, S]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        sizes = spec.head_args
        # The projection of CLIP is timm's linear head. SigLIP has none.
        self.body = timm_body(spec, num_classes=sizes["projection"])
        self.text = _TextHead(len(spec.tags), sizes["width"], negative=sizes["negative"])

    def get_classifier(self) -> nn.Module:
        """The layer that computes in fp32."""
        return self.text

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.text(self.body(images))
        return logits


class _TextHead(nn.Module):
    def __init__(self, tags: int, width: int, *, negative: bool) -> None:
        super().__init__()
        self.text_features = nn.Parameter(torch.empty(tags, width))
        self.logit_scale = nn.Parameter(torch.empty(()))
        if negative:
            self.negative_features = nn.Parameter(torch.empty(width))
        else:
            self.logit_bias = nn.Parameter(torch.empty(()))
        self.negative = negative

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits [N, T] of features [N, width], which need not be normalised."""
        f = functional.normalize(features, dim=-1)
        products = f @ functional.normalize(self.text_features, dim=-1).T
        if self.negative:
            # A softmax over two is a sigmoid of the difference.
            products = products - (f @ functional.normalize(self.negative_features, dim=-1))[:, None]
            return self.logit_scale.exp() * products
        return self.logit_scale.exp() * products + self.logit_bias
