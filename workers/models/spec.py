"""The description of a model: all that is needed to run it and to compare its scores.

Everything that varies between families of taggers is a field, so that the decoder, the preprocessing and the network
do not depend on the family.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from db.errors import ModelError
from db.ledger.models import Tag
from db.policy.policies import Policy
from workers.models.key_map import AS_IS, KeyMap
from workers.models.stages import PillowFilter, Stage

Network = Literal["timm", "hydra", "hydra2", "joytag", "camie", "vitdet", "ram", "text", "taggerine"]
Head = Literal["linear", "gated", "hierarchy"]
Activation = Literal["sigmoid", "softmax", "none"]
SquareResize = Literal["fit", "square-pad", "timm"]
Resize = Literal[SquareResize, "stages", "patches", "snap"]
Filter = Literal[PillowFilter, "mks2013-linear"]
Orientation = Literal["none", "exif"]
Profile = Literal["none", "srgb"]
FillWhen = Literal["before", "after"]
ChannelOrder = Literal["RGB", "BGR"]
CropMode = Literal["center", "squash", "border"]
Engine = Literal["torch", "onnx"]
Layout = Literal["NCHW", "NHWC"]
Scale = Literal["0..1", "0..255"]
Colour = tuple[float, float, float]

PATCH = 16
"""Side of a patch of `patches`, in pixels."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "network": get_args(Network),
    "head": get_args(Head),
    "activation": get_args(Activation),
    "resize": get_args(Resize),
    "filter": get_args(Filter),
    "fill_when": get_args(FillWhen),
    "channel_order": get_args(ChannelOrder),
    "crop_mode": get_args(CropMode),
    "orientation": get_args(Orientation),
    "profile": get_args(Profile),
    "layout": get_args(Layout),
    "scale": get_args(Scale),
}

_ADDED: dict[str, Any] = {
    "network": "timm",
    "head_args": {},
    "stages": (),
    "orientation": "none",
    "profile": "none",
    "scale": "0..1",
}
"""Fields with their defaults. They are part of the identity only with another value, because models were registered
before these fields existed."""


@dataclass(frozen=True)
class ModelSpec:
    """One model, ready to be loaded. Colours are RGB in 0..1."""

    name: str
    """Name for people: that of the registry, or of its folder."""
    family: str
    """`jtp`, `wd`, `timm`, `hydra`, ..., for people. Only the reader of the demo's weight file depends on it."""
    architecture: str
    """Name of the backbone in timm; `onnx` for an ONNX file, which contains its network."""
    tags: tuple[Tag, ...]
    """Tags by output position."""
    weights: Path
    """Weight file."""
    size: int
    """Side of the square input, in pixels. For `patches` and `snap`, of the largest square: an input has at most
    (size / 16)^2 patches."""
    network: Network = "timm"
    """`timm`: timm's network with a head; otherwise the network of `workers.inference.networks` with this name."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `timm.create_model` besides `num_classes`."""
    head_args: dict[str, Any] = field(default_factory=dict)
    """Sizes of the parts of a network that are not timm's."""
    text_matrix: Path | None = None
    """File with an embedding for each tag, for a zero-shot tagger. `head_args` has its hash."""
    keys: KeyMap = AS_IS
    """From the names in the weight file to those of the network."""
    head: Head = "linear"
    """`linear`: an output per tag; `gated`: two per tag, multiplied; `hierarchy`: leaves, then sums of leaves."""
    activation: Activation = "sigmoid"
    """Applied to the outputs of the head; `none` if the network already gives probabilities."""
    groups: tuple[tuple[int, ...], ...] = ()
    """For a hierarchy: the output positions that each tag after the leaves sums."""
    resize: Resize = "timm"
    """`fit`: keep the aspect ratio and pad; `square-pad`: pad to a square, then as `timm`; `timm`: stages of timm;
    `stages`: those of the field `stages`; `patches`: to whole patches of 16 x 16, as many as the largest square has;
    `snap`: to whole patches, with the long side at most `size`."""
    stages: tuple[Stage, ...] = ()
    """For `stages`: the steps, of which the last one gives the square input."""
    grow: bool = True
    """For `fit`: enlarge images smaller than `size`."""
    filter: Filter = "bicubic"
    """Pillow's resampling filter, or Magic Kernel Sharp 2013 in linear light."""
    orientation: Orientation = "none"
    """`exif`: turn the image as its EXIF states."""
    profile: Profile = "none"
    """`srgb`: convert the colours from the embedded ICC profile."""
    background: Colour | None = None
    """Colour under transparency. None: alpha is dropped as by Pillow's `convert("RGB")`."""
    fill: Colour = (0.0, 0.0, 0.0)
    """Colour of the padding of `fit` and `square-pad`."""
    fill_when: FillWhen = "before"
    """`before`: `fill` is a colour before normalisation; `after`: a value after it."""
    channel_order: ChannelOrder = "RGB"
    """Channel order of the network. The swap is the last step, after mean and std."""
    mean: Colour = (0.5, 0.5, 0.5)
    """Subtracted from pixels in the range of `scale`."""
    std: Colour = (0.5, 0.5, 0.5)
    """Divides the difference."""
    scale: Scale = "0..1"
    """Range of the pixels that `mean` and `std` refer to; of `background` and `fill` it is always 0..1."""
    layout: Layout = "NCHW"
    """ONNX: order of the axes of the input."""
    output: str = ""
    """ONNX: name of the output with a value per tag."""
    external: tuple[Path, ...] = ()
    """ONNX: files with weights beside the weight file."""
    crop_pct: float = 1.0
    """timm: share of the resized image that the centre crop keeps."""
    crop_mode: CropMode = "center"
    """timm: kind of crop."""
    dct_scaling: bool = False
    """Decode large JPEGs at reduced size: faster, but different from the reference."""
    default_threshold: float = 0.35
    """Threshold of its authors. A default for queries; not applied to stored scores."""
    policy: Policy = field(default_factory=Policy)
    """Thresholds that come with the model, by tag and by category. A default as `default_threshold` is one; neither is
    part of the identity."""
    implied: tuple[tuple[str, str], ...] = ()
    """(tag, tag that it implies), as the model's files state. Scores do not depend on it."""

    def __post_init__(self) -> None:
        """Validate the fields before any weights are read.

        Raises:
            ModelError: a field has an unknown value, or one that contradicts another field.
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
        if self.resize == "stages":
            self._check_stages()
        self._check_patches()
        if self.engine == "torch" and (self.output or self.layout != "NCHW"):
            raise ModelError(f"Model {self.name}: layout and output are of ONNX files; the weights are {self.weights}.")

    @property
    def engine(self) -> Engine:
        """What runs the network: torch, or ONNX Runtime."""
        return "onnx" if self.weights.suffix == ".onnx" else "torch"

    @property
    def takes_patches(self) -> bool:
        """Whether inputs are patches of pictures of different shapes, instead of square images."""
        return self.resize in {"patches", "snap"}

    @property
    def outputs(self) -> int:
        """Number of outputs of the network, without groups."""
        return len(self.tags) - len(self.groups)

    def identity(self) -> dict[str, Any]:
        """All properties besides the weights that scores depend on, as plain JSON values."""
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
        if (
            self.dct_scaling
        ):  # only if set, so that the identity of models registered before this field existed does not change
            facts["dct_scaling"] = True
        facts |= {name: getattr(self, name) for name, default in _ADDED.items() if getattr(self, name) != default}
        if self.engine == "onnx":
            facts["onnx"] = {"layout": self.layout, "output": self.output}
        # The round trip turns tuples into lists, so that it equals the value read from a database.
        plain: dict[str, Any] = json.loads(json.dumps(facts, sort_keys=True, default=asdict))
        return plain

    def _check_patches(self) -> None:
        if self.takes_patches and self.size % PATCH:
            raise ModelError(f"Model {self.name}: size is {self.size}; for patches it is a multiple of {PATCH}.")
        if self.filter == "mks2013-linear" and self.resize != "patches":
            raise ModelError(f"Model {self.name}: the filter mks2013-linear is for patches only.")

    def _check_stages(self) -> None:
        square = (self.size, self.size)
        if self.stages and self.stages[-1].kind != "short" and self.stages[-1].size == square:
            return
        raise ModelError(
            f"Model {self.name}: the last step of its preprocessing must give {self.size} x {self.size} pixels, and "
            f"the steps are: {', '.join(f'{one.kind} {one.size}' for one in self.stages) or 'none'}."
        )

    def weights_sha256(self) -> str:
        """SHA-256 of the weight file in hexadecimal. Reads the file once: seconds for gigabytes.

        If the weights are in several files, it is the SHA-256 of the SHA-256 of each, 32 bytes a file, in order.
        """
        return self._hashed[0]

    def check_weights(self) -> None:
        """Check that the weight file has not changed since it was hashed: scores would be stored for a wrong model.

        Raises:
            ModelError: the file was replaced, modified or deleted.
        """
        if "_hashed" not in vars(self):
            return
        try:
            unchanged = tuple(_state(path.stat()) for path in (self.weights, *self.external)) == self._hashed[1]
        except OSError:
            unchanged = False
        if not unchanged:
            raise ModelError(f"{self.weights} changed while it was in use. Start again.")

    @cached_property
    def _hashed(self) -> tuple[str, tuple[tuple[int, ...], ...]]:
        digests, states = [], []
        for path in (self.weights, *self.external):
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256"))
                # Of the open file: its name may refer to another file by now.
                states.append(_state(os.fstat(file.fileno())))
        whole = digests[0]
        if self.external:
            whole = hashlib.sha256(b"".join(digest.digest() for digest in digests))
        return whole.hexdigest(), tuple(states)


def _state(file: os.stat_result) -> tuple[int, ...]:
    """A value that changes when a file is replaced or modified."""
    return file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns


def _sha256_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
