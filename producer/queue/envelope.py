"""Validation of messages before Celery processes them. Anyone with access to Redis can send one, and Celery obeys it.

Celery would run any registered task (`celery.starmap` is one), wait until an `eta`, and send the tasks that a message
lists as its successors. So only messages as `producer.queue.chunks` sends them are passed on.
"""

import base64
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from producer.queue.broker import TASK_NAME
from producer.queue.chunks import Chunk

Nothing = None | Annotated[list[Any], Field(max_length=0)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Headers(BaseModel):
    """Headers that select the task or change how it runs. All others are dropped, see `plain_headers`."""

    task: str = Field(pattern=f"^{re.escape(TASK_NAME)}$")
    id: str = Field(pattern="^[0-9a-f-]{36}$")
    """A UUID; key of the table `deliveries`."""
    eta: None = None
    expires: None = None
    group: None = None
    chord: None = None
    retries: Literal[0] = 0
    timelimit: list[None] = Field(default=[None, None], max_length=2)


class _DeliveryInfo(BaseModel):
    exchange: Literal[""]
    routing_key: Name


class _Properties(BaseModel):
    body_encoding: Literal["base64"]
    delivery_tag: Name
    delivery_info: _DeliveryInfo
    priority: Literal[0] = 0


class _Successors(BaseModel):
    """Tasks that Celery would send afterwards."""

    model_config = ConfigDict(extra="forbid")

    callbacks: Nothing = None
    errbacks: Nothing = None
    chain: Nothing = None
    chord: Nothing = None


def _decoded(body: Any) -> Any:
    """The body, JSON in base64, as Python values. Raises ValueError if it is not that."""
    return json.loads(base64.b64decode(body, validate=True)) if isinstance(body, str) else body


class _Envelope(BaseModel):
    model_config = ConfigDict(strict=True)

    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: _Headers
    properties: _Properties
    body: Annotated[
        tuple[Annotated[list[Any], Field(max_length=0)], Chunk, _Successors],
        Field(strict=False),
        BeforeValidator(_decoded),
    ]


def plain_headers(message: Any) -> dict[str, Any]:
    """The headers of a message as our producer sends them. Celery acts on undocumented ones; some end the worker."""
    return {
        "lang": "py",
        "task": TASK_NAME,
        "id": message["headers"]["id"],
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "()",
        "kwargsrepr": "",
        "origin": "",
    }


def why_refused(message: Any) -> str | None:
    """Why a message is not a chunk as our producer sends it; None if it is.

    Args:
        message: the decoded JSON of an entry of the queue.
    """
    try:
        _Envelope.model_validate(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'message'}: {first['msg']}"
    except RecursionError:
        return "message: nested too deeply"
    return None
