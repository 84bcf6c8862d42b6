"""Randomly mutated files are decoded or refused with ImageError. `fuzz/decode.py` does this for longer."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.errors import ImageError, Reason
from tests.fixtures.examples import up_to
from tests.fixtures.hostile import MODEL, broken, whole
from workers.images.decode import Decoder

FILES = sorted(whole().values(), key=len)
REASONS = {Reason.CORRUPT, Reason.UNSUPPORTED, Reason.TOO_LARGE}

spots = st.floats(0, 1, exclude_max=True)
"""Where in a file, as a part of its length."""
changes = st.one_of(
    st.tuples(st.just("set"), spots, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("insert"), spots, st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("delete"), spots, st.integers(1, 40)),
    st.tuples(st.just("cut"), spots, st.none()),
    st.tuples(st.just("splice"), spots, st.sampled_from(FILES)),
)


def changed(data: bytes, change: tuple[str, float, bytes | int | None]) -> bytes:
    kind, spot, what = change
    at = int(spot * len(data))
    match kind, what:
        case "set", bytes():
            return data[:at] + what + data[at + len(what) :]
        case "insert", bytes():
            return data[:at] + what + data[at:]
        case "delete", int():
            return data[:at] + data[at + what :]
        case "splice", bytes():
            return data[:at] + what[int(spot * len(what)) :]
        case _:
            return data[:at]


def check(data: bytes) -> None:
    decoder = Decoder(MODEL, 1_000_000)  # created here, because pytest resets warning filters between tests
    try:
        found = decoder.decode(data)
    except ImageError as error:
        refusal = error
    else:
        assert max(found.pixels.shape[:2]) == MODEL.size
        assert found.width * found.height <= 1_000_000
        return
    assert refusal.reason in REASONS
    assert 5 < len(refusal.detail) < 350
    assert refusal.detail.isprintable()


@settings(max_examples=up_to(1500), derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.sampled_from(FILES), steps=st.lists(changes, min_size=1, max_size=4))
def test_what_was_changed_at_random_is_decoded_or_refused(
    data: bytes, steps: list[tuple[str, float, bytes | int | None]]
) -> None:
    """A warning would be an error here, as in all tests."""
    for step in steps:
        data = changed(data, step)
    check(data)


def test_a_thousand_accidents_are_decoded_or_refused() -> None:
    """Of other kinds than above: lengths that grow, parts that are repeated."""
    for _name, data in broken(1000, seed=3):
        check(data)
