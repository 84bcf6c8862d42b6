"""The queue on a real server: the content of messages, the waiting of senders, the settings of the application."""

import base64
import gc
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from celery import Celery
from celery.app.defaults import DEFAULTS
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.redis import Channel

from db.database import Database
from db.errors import BrokerError, Reason, SettingsError, SourceError
from db.ledger import images, results
from db.ledger.images import Reference
from db.ledger.models import Model
from db.ledger.results import Failure
from producer.enqueue import READ_SIZE, enqueue, enqueue_pending
from producer.queue import broker, chunks
from producer.queue.broker import TASK_NAME, Depth, create_app, depth
from producer.queue.chunks import LOOK_EVERY, MAX_IMAGES, Chunk, sending
from tests.fixtures.servers import RedisServer
from workers.queue.process import Stop, add_task

QUEUE_KEY = "tagonce:tag.1"
NOBODY = "redis://:s3cret@127.0.0.1:1/0"
MANY = 1_000_000


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """The application for model 1, on a server for this test alone."""
    made = create_app(redis_url, 1)
    yield made
    made.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator["redis.Redis"]:
    """A plain Redis client, which sees the raw keys."""
    with redis_server.client as plain:
        yield plain


def messages(client: "redis.Redis") -> list[dict[str, Any]]:
    """All waiting messages, oldest first, as stored in Redis."""
    return [json.loads(text) for text in reversed(cast("list[bytes]", client.lrange(QUEUE_KEY, 0, -1)))]


def body(message: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(message["body"]))


# ── messages ──


def test_a_message_is_json_and_holds_ids_only(app: Celery, client: "redis.Redis") -> None:
    """Each id occurs once in it: a long queue costs memory of Redis."""
    with sending(app, 1, max_waiting=MANY) as sender:
        sender.send([101_001, 101_002, 101_003])
    (message,) = messages(client)
    assert (message["content-type"], message["headers"]["task"]) == ("application/json", TASK_NAME)
    arguments, keywords, embedded = body(message)
    assert arguments == []
    assert keywords == {"model_id": 1, "image_ids": [101_001, 101_002, 101_003]}
    assert not any(embedded.values())
    assert message["headers"]["kwargsrepr"] == "3 images"
    assert "101001" not in json.dumps({**message, "body": None})
    assert Chunk.from_message(keywords) == Chunk(model_id=1, image_ids=[101_001, 101_002, 101_003])


def test_our_keys_and_no_others_are_in_redis(app: Celery, client: "redis.Redis") -> None:
    """Other programs may use the same database."""
    with sending(app, 1, max_waiting=MANY) as sender:
        sender.send([1])
    assert {key.partition(b":")[0] for key in cast("list[bytes]", client.keys())} == {b"tagonce"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ids = st.integers(-1, 3) | st.sampled_from([2**63 - 1, 2**63, True, 1.0, "1"])
some_keywords = st.dictionaries(
    st.sampled_from(["model_id", "image_ids"]) | st.text(max_size=9), json_values, max_size=3
) | st.fixed_dictionaries({"model_id": ids, "image_ids": st.lists(ids, max_size=3) | json_values})


def is_row_id(value: object) -> bool:
    return type(value) is int and 0 < value < 2**63


@given(some_keywords)
def test_anything_but_a_chunk_is_refused(keywords: dict[str, Any]) -> None:
    """Wrong names, types, and numbers that no row has: anyone with access to Redis can put anything on the queue."""
    numbers = keywords.get("image_ids")
    good = (
        keywords.keys() == {"model_id", "image_ids"}
        and is_row_id(keywords["model_id"])
        and isinstance(numbers, list)
        and len(numbers) > 0
        and all(map(is_row_id, numbers))
    )
    chunk = Chunk.from_message(keywords)
    assert (chunk is not None) == good
    assert chunk is None or chunk.model_dump() == keywords


def test_a_chunk_has_a_largest_size() -> None:
    assert Chunk.from_message({"model_id": 1, "image_ids": [1] * MAX_IMAGES})
    assert Chunk.from_message({"model_id": 1, "image_ids": [1] * (MAX_IMAGES + 1)}) is None


# ── the depth of the queue, and waiting senders ──


def test_the_depth_counts_what_waits_and_what_is_held(app: Celery) -> None:
    assert depth(app, 1) == Depth(0, 0)
    assert depth(app, 1).empty
    with sending(app, 1, max_waiting=MANY) as sender:
        for number in range(1, 4):
            sender.send([number])
    assert depth(app, 1) == Depth(3, 0)
    with app.connection_for_read() as connection, connection.channel() as channel:
        held = channel.basic_get(broker.queue_name(1))
        assert held is not None
        assert depth(app, 1) == Depth(2, 1)
        channel.basic_ack(held.delivery_tag)
        assert depth(app, 1) == Depth(2, 0)
    assert depth(app, 2) == Depth(0, 0)


@pytest.mark.parametrize("drained", [7, 60, 1000])
def test_a_sender_waits_while_the_queue_is_full_and_goes_on_when_it_is_half_empty(
    app: Celery, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch, drained: int
) -> None:
    """Workers take a number of chunks between two checks. Nothing is lost, and the queue stays near its limit."""
    monkeypatch.setattr(chunks, "POLL_SECONDS", 0)
    limit, taken, seen = 100, [], []

    def wait(waiting: int) -> None:
        seen.append(waiting)
        taken.extend(client.rpop(QUEUE_KEY, drained) or [])

    with sending(app, 1, max_waiting=limit, on_wait=wait) as sender:
        for number in range(1, 501):
            sender.send([number])
    begun = [seen[0], *(after for before, after in pairwise(seen) if after > before)]
    assert all(limit <= waiting < limit + chunks.LOOK_EVERY for waiting in begun)
    assert min(seen) >= limit * chunks.LOW_WATER
    assert client.llen(QUEUE_KEY) < limit + chunks.LOOK_EVERY
    sent = [body(json.loads(text))[1]["image_ids"] for text in taken]
    assert sent + [body(message)[1]["image_ids"] for message in messages(client)] == [[n] for n in range(1, 501)]


def test_a_sender_that_waits_sees_what_another_process_takes(
    app: Celery, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "POLL_SECONDS", 0.01)
    stop, full = threading.Event(), threading.Event()

    def work() -> None:
        full.wait(30)
        while not stop.is_set():
            client.rpop(QUEUE_KEY)

    worker = threading.Thread(target=work)
    worker.start()
    with sending(app, 1, max_waiting=50, on_wait=lambda _waiting: full.set()) as sender:
        for number in range(1, 301):
            sender.send([number])
    stop.set()
    worker.join()
    assert full.is_set()
    assert sender.sent_chunks == 300


def test_a_sender_tells_what_it_sent(app: Celery) -> None:
    chunks: list[list[int]] = []
    with sending(app, 1, max_waiting=MANY, on_sent=lambda sent: chunks.append(list(sent))) as sender:
        sender.send([1, 2])
        sender.send((3,))
    assert chunks == [[1, 2], [3]]


# ── from references to messages ──


def queued(client: "redis.Redis") -> list[list[int]]:
    return [body(message)[1]["image_ids"] for message in messages(client)]


def test_what_is_pending_is_sent_in_chunks_once_its_rows_are_there(
    app: Celery, client: "redis.Redis", database: Database, model: Model
) -> None:
    """Images that are done or failed are not sent again; the counts show it."""
    references = [Reference(f"s3://b/{number:05}", "1", 1) for number in range(2_050)]
    with database.write() as connection:
        first, *_ = images.register(connection, references[:1], model.id)
        results.save(connection, model.id, [], [Failure(first, "1", Reason.CORRUPT, "")])
    looks: list[tuple[int, int]] = []
    with sending(app, model.id, max_waiting=MANY) as sender:
        counts = enqueue(
            database,
            sender,
            iter(references),
            model_id=model.id,
            chunk_size=100,
            on_progress=lambda now: looks.append((now.seen, now.sent)),
        )
    assert (counts.seen, counts.sent) == looks[-1] == (2_050, 2_049)
    assert [len(chunk) for chunk in queued(client)] == [100] * 20 + [49]
    with database.read() as connection:
        pending = images.pending_after(connection, model.id, 0, 5_000)
    assert sorted(number for chunk in queued(client) for number in chunk) == pending


def test_what_a_slow_source_gave_is_sent_before_it_gives_more(
    app: Celery, client: "redis.Redis", database: Database, model: Model
) -> None:
    """A batch need not be full: a list of objects, each looked up, yields only some hundreds per second."""
    sent_by_then: list[int] = []

    def pending() -> int:
        with database.read() as connection:
            return images.count_pending(connection, model.id)

    def source() -> Iterator[Reference]:
        for number in range(4 * READ_SIZE):
            if number == 3 * READ_SIZE:
                sent_by_then.append(sum(map(len, queued(client))))
            while number >= READ_SIZE and number % READ_SIZE == 0 and not pending():
                time.sleep(0.05)
            yield Reference(f"s3://b/{number:05}", "1", 1)

    with sending(app, model.id, max_waiting=MANY) as sender:
        enqueue(database, sender, source(), model_id=model.id, chunk_size=READ_SIZE // LOOK_EVERY)
    assert sent_by_then[0] >= READ_SIZE
    assert sum(map(len, queued(client))) == 4 * READ_SIZE


def test_a_source_that_fails_has_what_it_gave_registered(app: Celery, database: Database, model: Model) -> None:
    """The error is raised, no thread is left, and a second run finds some images registered."""

    def source() -> Iterator[Reference]:
        yield from (Reference(f"s3://b/{number:05}", "1", 1) for number in range(2 * READ_SIZE))
        raise SourceError("gone")

    with pytest.raises(SourceError, match="gone"), sending(app, model.id, max_waiting=MANY) as sender:
        enqueue(database, sender, source(), model_id=model.id, chunk_size=100)
    with database.read() as connection:
        assert images.count_pending(connection, model.id) >= READ_SIZE
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("register")]


def test_the_cycle_collector_runs_seldom_while_references_are_registered(
    app: Celery, database: Database, model: Model
) -> None:
    """Batches are many objects without a cycle. Afterwards the collector runs as before, also after an error."""
    before, during = gc.get_threshold(), []

    def source() -> Iterator[Reference]:
        yield Reference("s3://b/1", "1", 1)
        during.append(gc.get_threshold()[0])
        raise SourceError("gone")

    with pytest.raises(SourceError, match="gone"), sending(app, model.id, max_waiting=MANY) as sender:
        enqueue(database, sender, source(), model_id=model.id, chunk_size=100)
    assert during[0] > 100 * before[0]
    assert gc.get_threshold() == before


def test_a_queue_that_was_lost_is_rebuilt_from_the_database(
    app: Celery, client: "redis.Redis", database: Database, model: Model
) -> None:
    references = [Reference(f"s3://b/{number:05}", "1", 1) for number in range(2_500)]
    with database.write() as connection:
        pending = images.register(connection, references, model.id)
    with sending(app, model.id, max_waiting=MANY) as sender:
        counts = enqueue_pending(database, sender, model_id=model.id, chunk_size=1_000)
    assert (counts.seen, counts.sent) == (2_500, 2_500)
    assert queued(client) == [pending[:1_000], pending[1_000:2_000], pending[2_000:]]


def test_nothing_pending_sends_nothing(app: Celery, client: "redis.Redis", database: Database, model: Model) -> None:
    with sending(app, model.id, max_waiting=MANY) as sender:
        assert enqueue(database, sender, [], model_id=model.id, chunk_size=10).seen == 0
        assert enqueue_pending(database, sender, model_id=model.id, chunk_size=10).sent == 0
    assert client.keys("tagonce:tag*") == []


RUN_WITHOUT_TORCH = """
import sys
sys.modules |= dict.fromkeys(["torch", "torchvision", "timm", "PIL", "safetensors", "stamina", "huggingface_hub"])
sys.argv = ["tagonce", *sys.argv[1:]]
from tagonce.cli import main
main()
"""


def test_the_producer_runs_on_a_host_without_torch(
    redis_url: str, client: "redis.Redis", database: Database, database_url: str, model: Model, tmp_path: Path
) -> None:
    """`tagonce enqueue FOLDER` with the packages of the extra `worker` blocked from import."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(b"x")
    options = ["--model", model.name, "--database", database_url, "--broker", redis_url, "--chunk-size", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT_TORCH, "enqueue", str(folder), *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"seen": 5, "sent": 5}
    assert [len(chunk) for chunk in queued(client)] == [2, 2, 1]


# ── the application ──


def test_every_option_is_one_that_celery_and_kombu_know() -> None:
    """Both silently accept any name, so a misspelled option would have no effect."""
    made = create_app("redis://localhost", 1)
    assert set(made.conf.changes) - set(DEFAULTS) <= {"deprecated_settings"}
    assert set(made.conf.broker_transport_options) <= set(Channel.from_transport_options)
    made.conf.update(task_ack_late=True)
    assert "task_ack_late" in set(made.conf.changes) - set(DEFAULTS)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("task_acks_late", True),
        ("task_acks_on_failure_or_timeout", True),
        ("task_reject_on_worker_lost", False),
        ("task_ignore_result", True),
        ("task_serializer", "json"),
        ("accept_content", ["json"]),
        ("task_create_missing_queues", False),
        ("worker_pool", "threads"),
        ("worker_disable_prefetch", True),
        ("worker_prefetch_multiplier", 4),
        ("worker_cancel_long_running_tasks_on_connection_loss", False),
        ("broker_connection_max_retries", None),
        ("result_backend", None),
    ],
)
def test_a_chunk_is_delivered_at_least_once_and_held_by_one(option: str, value: object) -> None:
    """The options that this depends on, by name: each has a default that would lose, duplicate or pickle messages."""
    assert create_app("redis://localhost", 1).conf[option] == value


def test_the_lease_is_what_was_asked_for() -> None:
    options = create_app("redis://localhost", 1, lease_seconds=60).conf.broker_transport_options
    assert (options["visibility_timeout"], options["unacked_restore_interval"]) == (60, 5)
    assert (
        create_app("redis://localhost", 1, lease_seconds=3).conf.broker_transport_options["unacked_restore_interval"]
        == 1
    )


def test_the_task_is_acknowledged_late(app: Celery) -> None:
    """Celery decides this when the task is created, so the option of the application alone is not enough."""
    add_task(app, cast("Any", SimpleNamespace(database=None)), Stop(), cast("Any", None))
    task = app.tasks[TASK_NAME]
    assert (task.acks_late, task.ignore_result, task.reject_on_worker_lost) == (True, True, False)


@pytest.mark.parametrize("url", ["amqp://tagonce:s3cret@queue//", "localhost:6379", "", "http://queue:6379"])
def test_a_broker_that_is_no_redis_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^TAGONCE_BROKER_URL has to be a Redis URL \(redis://, ") as caught:
        create_app(url, 1)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "verified"),
    [
        ("rediss://queue/0", ssl.CERT_REQUIRED),
        ("rediss://queue/0?ssl_ca_certs=/ca.pem", ssl.CERT_REQUIRED),
        ("rediss://queue/0?ssl_cert_reqs=none", ssl.CERT_NONE),
    ],
)
def test_a_certificate_is_checked_unless_the_url_says_otherwise(url: str, verified: ssl.VerifyMode) -> None:
    assert create_app(url, 1).connection_for_write().ssl["ssl_cert_reqs"] == verified


def _send(app: Celery) -> None:
    with sending(app, 1, max_waiting=MANY) as sender:
        sender.send([1])


@pytest.mark.parametrize("use", [broker.check, broker.workers, broker.release_all, _send, lambda app: depth(app, 1)])
def test_a_redis_that_is_not_there_is_said_without_the_password(use: Callable[[Celery], object]) -> None:
    """At every attempt: kombu keeps failed connections in a pool, and the second attempt takes one of these."""
    nobody = create_app(NOBODY, 1)
    for _ in range(2):
        said = r"^Redis at redis://:\*\*@127\.0\.0\.1:1/0 does not answer: .* \(or --broker\) names its host .*\.$"
        with pytest.raises(BrokerError, match=said) as caught:
            use(nobody)
        assert "s3cret" not in str(caught.value)


def test_a_redis_that_answers_passes_the_check(app: Celery) -> None:
    broker.check(app)
    assert broker.workers(app, timeout=0.1) == []
