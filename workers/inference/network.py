"""Builds the network of a specification, and loads its weights."""

import contextlib
import copy
import hashlib

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import nn

from db.errors import ModelError
from workers.inference.demo_weights import read_demo_weights
from workers.inference.networks.body import timm_body
from workers.inference.networks.build import build_network
from workers.inference.tensor_names import translated
from workers.models.spec import Activation, ModelSpec

_SHOWN = 3
"""Tensor names that an error lists, at most."""


class GatedHead(nn.Module):
    """The head of JTP PILOT2: two outputs per tag, whose sigmoids are multiplied to the probability.

    `forward`: features [N, F] to raw outputs [N, 2*T], first the T values, then their T gates. `Network` applies the
    sigmoids, in fp32 for every precision of the backbone.
    """

    def __init__(self, features: int, tags: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * tags)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Raw outputs [N, 2*T]."""
        outputs: torch.Tensor = self.linear(features)
        return outputs


class Network(nn.Module):
    """A backbone in its precision, and probabilities in fp32. For inference only."""

    groups: torch.Tensor

    def __init__(self, spec: ModelSpec, backbone: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone = backbone
        self.dtype = dtype
        self.head = spec.head
        self.activation = spec.activation
        self.has_header = spec.takes_patches
        """Whether the input holds numbers that a lower precision would round. The backbone converts the rest."""
        self.register_buffer("groups", _group_matrix(spec), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities, fp32 [N, T], of images [N, 3, S, S] from `Preprocess.normalise`, or from its like."""
        outputs: torch.Tensor = self.backbone(images if self.has_header else images.to(self.dtype)).float()
        if self.head == "gated":
            values, gates = outputs.chunk(2, dim=-1)
            return probabilities_of(values, "sigmoid") * probabilities_of(gates, "sigmoid")
        outputs = probabilities_of(outputs, self.activation)
        if self.head == "hierarchy":
            # Rounding can make a sum of hundreds of leaves slightly larger than 1.
            return torch.cat([outputs, (outputs @ self.groups).clamp(max=1.0)], dim=-1)
        return outputs


def probabilities_of(outputs: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Probabilities of raw outputs, fp32 of the same shape; NaN where an output is not finite."""
    # Infinite if activations overflowed fp16: a sigmoid would make a score of 0 or 1 of it.
    outputs = torch.where(outputs.isfinite(), outputs, torch.nan)
    if activation == "sigmoid":
        return outputs.sigmoid()
    return outputs.softmax(dim=-1) if activation == "softmax" else outputs


def build_backbone(spec: ModelSpec) -> nn.Module:
    """The network of the model with random weights, on the current default device.

    Raises:
        ModelError: timm has no such architecture, or refuses the arguments.
    """
    if spec.network != "timm":
        return build_network(spec)
    # Without this configuration, timm would take missing arguments from that of its registered weights.
    cfg = {"input_size": (3, spec.size, spec.size), "num_classes": spec.outputs}
    backbone: nn.Module = timm_body(spec, pretrained_cfg=cfg, num_classes=spec.outputs)
    if spec.head == "gated":
        if not isinstance(backbone.head, nn.Linear):
            raise ModelError(f"Model {spec.name}: a gated head needs a backbone with one linear head.")
        backbone.head = GatedHead(backbone.head.in_features, spec.outputs)
    return backbone


def load_network(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Network:
    """The network with its weights, on the device, in evaluation mode.

    Args:
        spec: the model. Its weight file must have exactly the tensors of the network.
        device: where it runs.
        dtype: precision of the backbone; probabilities are always fp32.

    Raises:
        ModelError: the weight file cannot be read, changed meanwhile, or does not fit the network.
    """
    # On the device from the start: drawing the random initial weights is fast on a GPU.
    with device if device.type != "cpu" else contextlib.nullcontext():
        backbone = build_backbone(spec)
    _load_weights(spec, backbone)
    # Convolutions are faster with channels last, which is also the layout of the pixels.
    backbone.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    _cast(backbone, dtype)
    return Network(spec, backbone, dtype).to(device).eval().requires_grad_(requires_grad=False)


def _cast(backbone: nn.Module, dtype: torch.dtype) -> None:
    """Convert all layers but the last one, which computes in fp32 on the features, whatever their type.

    In fp32 it costs 21 MFLOP of SO400M's 670 GFLOP an image. Its own rounding is a small part of the error: the mean
    error of the demo model's tags at or above 0.2 (26 photographs) falls from 0.0269 to 0.0262 in bf16, and from
    0.00140 to 0.00130 in fp16. The rest is the backbone's.
    """
    found = backbone.get_classifier()  # type: ignore[operator]  # a method of timm's networks
    heads = found if isinstance(found, tuple | list) else (found,)
    exact = [copy.deepcopy(head.state_dict()) for head in heads]
    backbone.to(dtype)
    for head, state in zip(heads, exact, strict=True):
        head.float().load_state_dict(state)
        head.register_forward_pre_hook(lambda _head, inputs: (inputs[0].float(), *inputs[1:]))


def _load_weights(spec: ModelSpec, backbone: nn.Module) -> None:
    try:
        weights = read_demo_weights(spec.weights) if spec.family == "demo" else load_file(spec.weights)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{spec.weights} cannot be read: {error}. Download it again.") from error
    spec.check_weights()
    weights = translated(weights, spec.keys) | _text_matrix(spec)
    expected = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    problems = [
        ("missing", [name for name in expected if name not in weights]),
        ("unexpected", [name for name in weights if name not in expected]),
        ("of another shape", [_shapes(n, s, weights) for n, s in expected.items() if _differs(n, s, weights)]),
    ]
    if any(names for _, names in problems):
        listed = "; ".join(f"{what}: {_some(names)}" for what, names in problems if names)
        raise ModelError(
            f"{spec.weights} does not fit {spec.architecture} with {len(spec.tags)} tags: {listed}. "
            "The weights belong to another architecture or tag list."
        )
    backbone.load_state_dict(weights)


def _text_matrix(spec: ModelSpec) -> dict[str, torch.Tensor]:
    if spec.text_matrix is None:
        return {}
    try:
        content = spec.text_matrix.read_bytes()
        tensors = load(content)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{spec.text_matrix} cannot be read: {error}.") from error
    if hashlib.sha256(content).hexdigest() != spec.head_args["text_sha256"]:
        raise ModelError(f"{spec.text_matrix} changed while it was in use. Start again.")
    return {f"text.{name}": tensor for name, tensor in tensors.items()}


def _differs(name: str, shape: tuple[int, ...], weights: dict[str, torch.Tensor]) -> bool:
    return name in weights and tuple(weights[name].shape) != shape


def _shapes(name: str, shape: tuple[int, ...], weights: dict[str, torch.Tensor]) -> str:
    return f"{name} is {tuple(weights[name].shape)} and should be {shape}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _group_matrix(spec: ModelSpec) -> torch.Tensor:
    """Matrix of 0 and 1, fp32 [leaves, groups]. Probabilities of leaves [N, leaves] @ this = those of groups."""
    matrix = torch.zeros(spec.outputs if spec.groups else 0, len(spec.groups))
    for column, leaves in enumerate(spec.groups):
        matrix[list(leaves), column] = 1.0
    return matrix
