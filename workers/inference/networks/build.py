"""Builds the network of a specification that is not timm's own."""

from collections.abc import Callable

from torch import nn

from workers.inference.networks.camie import Camie
from workers.inference.networks.hydra import Hydra
from workers.inference.networks.joytag import joytag
from workers.inference.networks.ram import RamPlus
from workers.inference.networks.taggerine import Taggerine
from workers.inference.networks.text import TextMatrix
from workers.inference.networks.vitdet import VitDet
from workers.models.spec import ModelSpec

_NETWORKS: dict[str, Callable[[ModelSpec], nn.Module]] = {
    "hydra": Hydra,
    "hydra2": Hydra,
    "joytag": joytag,
    "camie": Camie,
    "vitdet": VitDet,
    "ram": RamPlus,
    "text": TextMatrix,
    "taggerine": Taggerine,
}


def build_network(spec: ModelSpec) -> nn.Module:
    """A network with random weights, on the current default device. Its `forward` returns raw outputs [N, outputs].

    Raises:
        ModelError: timm cannot build its body.
    """
    return _NETWORKS[spec.network](spec)
