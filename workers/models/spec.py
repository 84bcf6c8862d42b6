"""What has to be known about a model to run it and to compare its scores. Needs no torch.

Everything that varies between tagger families is a field here, so that the decoder, the preprocessing and the
network read one description and know no family by name.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from db.errors import ModelError
from db.ledger.models import Tag

Head = Literal["linear", "gated", "hierarchy"]
Activation = Literal["sigmoid", "softmax", "none"]
Resize = Literal["fit", "square-pad", "timm"]
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
FillWhen = Literal["before", "after"]
ChannelOrder = Literal["RGB", "BGR"]
CropMode = Literal["center", "squash", "border"]
Colour = tuple[float, float, float]

_CHOICES: dict[str, tuple[str, ...]] = {
    "head": get_args(Head),
    "activation": get_args(Activation),
    "resize": get_args(Resize),
    "filter": get_args(Filter),
    "fill_when": get_args(FillWhen),
    "channel_order": get_args(ChannelOrder),
    "crop_mode": get_args(CropMode),
}


@dataclass(frozen=True)
class ModelSpec:
    """One model, ready to be loaded. Colours are in 0..1 and in RGB order."""

    name: str
    """What people call it: the registry's name, or the name of its folder."""
    family: str
    """`jtp`, `wd`, `timm` or `demo`: for people. No code path depends on it but the demo's weight file."""
    architecture: str
    """timm's name of the backbone."""
    tags: tuple[Tag, ...]
    """Output position by output position."""
    weights: Path
    """The weight file."""
    size: int
    """Side of the square input, in pixels."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `timm.create_model` besides `num_classes`."""
    head: Head = "linear"
    """`linear`: an output per tag; `gated`: two per tag, multiplied; `hierarchy`: leaves, then sums of leaves."""
    activation: Activation = "sigmoid"
    """From the head's outputs to probabilities; `none` when the network already gives probabilities."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Of a hierarchy: for each tag after the leaves, the output positions whose probabilities it sums."""
    resize: Resize = "timm"
    """`fit`: keep the aspect, pad; `square-pad`: pad to a square, then as timm; `timm`: timm's own stages."""
    grow: bool = True
    """Of `fit`: enlarge images smaller than `size`."""
    filter: Filter = "bicubic"
    """Pillow's resampling filter."""
    background: Colour | None = None
    """What shows under transparency; None drops alpha as Pillow's `convert("RGB")` does."""
    fill: Colour = (0.0, 0.0, 0.0)
    """Colour of the padding of `fit` and `square-pad`."""
    fill_when: FillWhen = "before"
    """`before` normalisation `fill` is a colour; `after` it, a value the network sees."""
    channel_order: ChannelOrder = "RGB"
    """What the network was trained on. The swap is the last step, after mean and std."""
    mean: Colour = (0.5, 0.5, 0.5)
    """Subtracted from pixels in 0..1."""
    std: Colour = (0.5, 0.5, 0.5)
    """Divides what is left."""
    crop_pct: float = 1.0
    """timm: share of the resized image that the centre crop keeps."""
    crop_mode: CropMode = "center"
    """timm: how the crop is made."""
    dct_scaling: bool = False
    """Decode large JPEGs at a fraction of their size: faster, and not what the reference does."""
    default_threshold: float = 0.35
    """Where its authors cut; only a default of queries, never applied to what is stored."""

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, before any weights are read.

        Raises:
            ModelError: a field has a value that does not exist or that contradicts another.
        """
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ModelError(
                    f"Model {self.name}: {name} is {getattr(self, name)!r}; use one of {', '.join(allowed)}."
                )
        if self.size < 1:
            raise ModelError(f"Model {self.name}: size is {self.size}; it is the input's side in pixels.")
        if 0.0 in self.std:
            raise ModelError(f"Model {self.name}: std holds a zero, and pixels are divided by it.")
        if self.head == "gated" and self.activation != "sigmoid":
            raise ModelError(f"Model {self.name}: a gated head multiplies sigmoids; set activation to sigmoid.")
        if self.resize == "square-pad" and self.fill_when != "before":
            raise ModelError(f"Model {self.name}: square-pad pads the image; set fill_when to before.")

    @property
    def outputs(self) -> int:
        """Outputs of the network before groups are added."""
        return len(self.tags) - len(self.groups)

    def identity(self) -> dict[str, Any]:
        """Everything besides the weights that makes two scores comparable, as plain JSON values."""
        preprocessing = (
            *("resize", "grow", "size", "filter", "background", "fill", "fill_when"),
            *("channel_order", "mean", "std", "crop_pct", "crop_mode"),
        )
        facts = {
            "architecture": self.architecture,
            "model_args": self.model_args,
            "head": self.head,
            "activation": self.activation,
            "preprocessing": {name: getattr(self, name) for name in preprocessing},
            "tags": len(self.tags),
            "tags_sha256": _sha256_json([[tag.name, tag.category] for tag in self.tags]),
        }
        if self.groups:
            facts["groups_sha256"] = _sha256_json(self.groups)
        if self.dct_scaling:  # only then, so that models which were registered before there was a choice stay the same
            facts["dct_scaling"] = True
        # A round trip turns tuples into lists, so that it equals what a database gives back.
        plain: dict[str, Any] = json.loads(json.dumps(facts, sort_keys=True))
        return plain

    def weights_sha256(self) -> str:
        """SHA-256 of the weight file in hexadecimal. Reads the whole file, once: seconds for gigabytes."""
        return self._hashed[0]

    def check_weights(self) -> None:
        """That they are still those that were hashed: their scores would go under a wrong name.

        Raises:
            ModelError: the file was replaced, written to or taken away meanwhile.
        """
        if "_hashed" not in vars(self):
            return
        try:
            unchanged = _state(self.weights.stat()) == self._hashed[1]
        except OSError:
            unchanged = False
        if not unchanged:
            raise ModelError(f"{self.weights} changed while it was in use. Start again.")

    @cached_property
    def _hashed(self) -> tuple[str, tuple[int, ...]]:
        with self.weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            # Of what is open: under this name there may be another file by now.
            return digest, _state(os.fstat(file.fileno()))


def _state(file: os.stat_result) -> tuple[int, ...]:
    """Changes when a file is replaced or written to."""
    return file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns


def _sha256_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
