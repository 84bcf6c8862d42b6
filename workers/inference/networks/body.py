"""Networks of timm as parts of a model."""

from typing import Any

import timm

from db.errors import ModelError
from workers.models.spec import ModelSpec


def timm_body(spec: ModelSpec, **arguments: Any) -> Any:
    """The `torch.nn.Module` of timm for a specification with random weights, on the current default device.

    Args:
        arguments: keyword arguments of `timm.create_model`; those of the specification take precedence.

    Raises:
        ModelError: timm has no such architecture, or refuses the arguments.
    """
    if not timm.is_model(spec.architecture):
        raise ModelError(
            f"Model {spec.name}: timm {timm.__version__} knows no architecture {spec.architecture!r}. "
            "Check the name, or install a newer timm."
        )
    arguments |= spec.model_args
    try:
        return timm.create_model(spec.architecture, pretrained=False, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ModelError(
            f"Model {spec.name}: timm cannot build {spec.architecture} with {spec.model_args}: {error}."
        ) from error
