"""A message from the queue is compared with those of a producer before Celery executes it."""

import json

import pytest
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.queue.broker import create_app
from producer.queue.envelope import plain_headers, why_refused
from tests.fixtures.examples import up_to
from tests.fixtures.messages import Message, a_message, with_header, wrong


@pytest.fixture(scope="module")
def message() -> Message:
    """A message as Celery makes it. The server is only the address that it was made for."""
    from tagonce.local.embedded_redis import broker as embedded

    with embedded() as url:
        app: Celery = create_app(url, 1)
        taken = a_message(app, 1)
        app.close()
    return taken


def test_what_a_producer_sends_is_taken(message: Message) -> None:
    assert why_refused(message) is None


def test_what_came_back_is_taken(message: Message) -> None:
    """The lease of the message expired, and kombu has marked it."""
    again = with_header(message, redelivered=True)
    again["properties"]["delivery_info"]["redelivered"] = True
    assert why_refused(again) is None


def test_everything_else_is_refused_and_the_log_says_why(message: Message) -> None:
    reasons = {name: why_refused(one) for name, one in wrong(message).items()}
    assert None not in reasons.values()
    assert reasons["pickle"] == "content-type: Input should be 'application/json'"
    assert reasons["an id that no column takes"].startswith("headers.id: ")


def test_unknown_headers_are_not_passed_on(message: Message) -> None:
    odd = with_header(message, stamped_headers=1, chain=[{"task": "x"}], shadow=[], callbacks=5, reply_to="y")
    assert why_refused(odd) is None
    assert plain_headers(odd) == plain_headers(message)
    assert plain_headers(odd)["id"] == message["headers"]["id"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=up_to(300), deadline=None)
@given(data=st.data())
def test_a_message_with_anything_in_any_place_is_taken_or_refused(message: Message, data: st.DataObject) -> None:
    """It never raises an error, which would end the worker."""
    changed = json.loads(json.dumps(message))
    place = changed
    while True:
        name = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[name], dict) or not place[name] or data.draw(st.booleans()):
            break
        place = place[name]
    place[name] = data.draw(JSON)
    why_refused(changed)
