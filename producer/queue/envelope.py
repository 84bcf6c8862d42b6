"""What may come off the queue. Whoever reaches Redis can put a message there, and Celery does what a message says.

It would run any task that it has (`celery.starmap` among them), wait until an `eta`, and send the tasks that a message
lists as its successors. So a message is compared with what `producer.queue.chunks` sends before Celery sees it.
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
    """Those that say what is wanted. Of the others none is passed on."""

    task: str = Field(pattern=f"^{re.escape(TASK_NAME)}$")
    id: str = Field(pattern="^[0-9a-f-]{36}$")
    """A UUID; it is a key of `deliveries`."""
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


def _opened(body: Any) -> Any:
    """A body is JSON in base64. Raises ValueError where it is not."""
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
        BeforeValidator(_opened),
    ]


def plain_headers(message: Any) -> dict[str, Any]:
    """Those of a message of ours. Celery acts on more of them than it documents, and on some by ending the worker."""
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
    """What is wrong with a message of a queue of chunks, as its JSON reads; None for one that a producer sent."""
    try:
        _Envelope.model_validate(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'message'}: {first['msg']}"
    except RecursionError:
        return "message: nested too deeply"
    return None
