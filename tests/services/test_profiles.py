"""Profiles are saved once and never changed, found by name and version, and applied by a join."""

import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import func, select, text

from db.database import Database
from db.errors import ThresholdError
from db.ledger.models import Model
from db.policy import profiles
from db.policy.policies import UNSET, Policy
from db.policy.profiles import Profile
from db.schema import profile_thresholds
from db.scores import NEVER

POLICY = Policy(3000, {"general": 4000}, {"tag_01": NEVER, "tag_02": 500}, 7)


def save(database: Database, model: Model, name: str, policy: Policy) -> Profile:
    with database.write() as connection:
        return profiles.save(connection, model, name, policy, source="a test")


def test_what_is_saved_is_found_again(database: Database, model: Model) -> None:
    saved = save(database, model, "mine", POLICY)
    with database.read() as connection:
        assert profiles.find(connection, model, "mine") == profiles.find(connection, model, "mine@1") == saved
    assert (saved.label, saved.policy, saved.source, saved.model_id) == ("mine@1", POLICY, "a test", model.id)


def test_another_policy_under_the_name_is_the_next_version_and_the_same_is_not(
    database: Database, model: Model
) -> None:
    labels = [save(database, model, "mine", policy).label for policy in (POLICY, POLICY, Policy(5000), POLICY)]
    assert labels == ["mine@1", "mine@1", "mine@2", "mine@3"]
    with database.read() as connection:
        assert profiles.find(connection, model, "mine@2").policy == Policy(5000)
        assert profiles.find(connection, model, "mine").version == 3
        assert [one.label for one in profiles.every(connection)] == ["mine@1", "mine@2", "mine@3"]


def test_a_profile_is_one_models(database: Database, model: Model, other_model: Model) -> None:
    """The same name may have another meaning for another model: scores of two models are not comparable."""
    save(database, model, "mine", Policy(3000))
    save(database, other_model, "mine", Policy(10))
    save(database, other_model, "theirs", Policy(20))
    with database.read() as connection:
        assert profiles.find(connection, model, "mine").policy == Policy(3000)
        assert profiles.find(connection, other_model, "mine").policy == Policy(10)
        assert len(profiles.every(connection)) == 3
        with pytest.raises(ThresholdError, match=r"tiny: there is no profile 'theirs'.* Saved are: mine@1\."):
            profiles.find(connection, model, "theirs")
        with pytest.raises(ThresholdError, match=r"no profile 'mine@2'; did you mean 'mine@1'\? Saved are: mine@1\."):
            profiles.find(connection, model, "mine@2")


@pytest.mark.parametrize(
    "name", ["", " x", "a@b", "0.35", "1e-3", "nan", "\0x", "a\nb", "default", "Default", "off", "latest", "none", "-x"]
)
def test_a_name_that_could_be_mistaken_is_refused(database: Database, model: Model, name: str) -> None:
    with pytest.raises(ThresholdError, match="cannot be the name of a profile"):
        save(database, model, name, POLICY)


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ('{"top": "abc"}', "top is a whole number from 1 to 2,147,483,647, not 'abc'."),
        ('{"top": 12345678901234567890}', "top is a whole number from 1 to 2,147,483,647, not 12345678901234567890."),
        ('{"mcut": "false"}', "mcut is true or false, not 'false'."),
        ('{"tags": {"tag_01": true}}', "the threshold of 'tag_01' is a number between 0 and 1, or off, not True."),
        ('{"tags": {"tag_01": 0.1, "tag_01": 0.2}}', "an object has the key 'tag_01' 2 times. Keep one of them."),
    ],
)
def test_a_stored_policy_of_another_form_is_refused_in_a_sentence(
    database: Database, model: Model, stored: str, sentence: str
) -> None:
    save(database, model, "mine", POLICY)
    save(database, model, "theirs", POLICY)
    with database.write() as connection:
        kind = "json" if connection.dialect.name == "postgresql" else "text"
        statement = text(f"update profiles set policy = cast(:stored as {kind}) where name = 'mine'")  # noqa: S608
        connection.execute(statement, {"stored": stored})
    with database.read() as connection:
        for find in (lambda: profiles.find(connection, model, "mine"), lambda: profiles.every(connection)):
            with pytest.raises(ThresholdError) as raised:
                find()
            assert str(raised.value) == f"The profile mine@1: {sentence}"
        assert profiles.find(connection, model, "theirs").policy == POLICY


def test_what_does_not_fit_the_model_is_not_saved(database: Database, model: Model) -> None:
    with pytest.raises(ThresholdError, match="no tag 'nothing'"):
        save(database, model, "mine", Policy(tags={"nothing": 5000}))
    with database.read() as connection:
        assert profiles.every(connection) == []


def test_every_tag_has_its_threshold_in_a_table_for_joins(
    database: Database, model: Model, registered: Callable[..., list[int]]
) -> None:
    """20 tags: tag_01 is off, tag_02 has its own threshold, odd tags that of general, the rest the one for all."""
    saved = save(database, model, "mine", POLICY)
    with database.read() as connection:
        rows = connection.execute(select(profile_thresholds).where(profile_thresholds.c.profile_id == saved.id))
        by_tag = {row.tag_id: row.score for row in rows}
    assert by_tag == {tag: 4000 if tag % 2 else 3000 for tag in range(20)} | {1: NEVER, 2: 500}


def test_a_model_that_goes_takes_its_profiles_along(database: Database, model: Model) -> None:
    save(database, model, "mine", POLICY)
    with database.write() as connection:
        connection.execute(text("delete from models"))
        assert profiles.every(connection) == []
        assert connection.scalar(select(func.count()).select_from(profile_thresholds)) == 0


def test_versions_saved_at_the_same_time_follow_each_other(
    database: Database, model: Model, in_threads: Callable[[int, Callable[[int, threading.Barrier], None]], None]
) -> None:
    def work(number: int, barrier: threading.Barrier) -> None:
        barrier.wait()
        save(database, model, "mine", Policy(1000 + number))

    in_threads(4, work)
    with database.read() as connection:
        found = profiles.every(connection)
    assert [one.version for one in found] == [1, 2, 3, 4]
    assert {one.policy.default for one in found} == {1000, 1001, 1002, 1003}


def test_a_save_says_which_version_it_started_from(database: Database, model: Model) -> None:
    """Otherwise the next version would silently lose the changes that another person saved since."""

    def from_version(version: int, policy: Policy) -> str:
        with database.write() as connection:
            return profiles.save(connection, model, "mine", policy, source="a test", started_from=version).label

    assert from_version(0, Policy(3000)) == "mine@1"
    assert from_version(1, Policy(4000)) == "mine@2"
    for version in (0, 1):
        with pytest.raises(ThresholdError, match="mine@2 already exists, and this would drop its thresholds"):
            from_version(version, Policy(5000))
    assert from_version(1, Policy(4000)) == "mine@2"  # sent twice
    assert from_version(2, Policy(5000)) == "mine@3"


def test_what_only_removes_is_saved_as_nothing_said(database: Database, model: Model) -> None:
    saved = save(database, model, "mine", Policy(3000, {"general": UNSET}, {"tag_01": UNSET}, UNSET, False))
    assert saved.policy == Policy(3000)


def test_two_changes_to_a_profile_at_once_follow_each_other(
    database: Database, model: Model, in_threads: Callable[[int, Callable[[int, threading.Barrier], None]], None]
) -> None:
    """Each begins with the version that the other one saved."""
    save(database, model, "mine", Policy(1000))

    def work(number: int, barrier: threading.Barrier) -> None:
        barrier.wait()
        with database.write() as connection:
            profiles.hold(connection, model)
            base = profiles.find(connection, model, "mine").policy
            time.sleep(0.2)
            changed = base.changed(Policy(tags={f"tag_{number:02}": 5000}))
            profiles.save(connection, model, "mine", changed, source="a test")

    in_threads(3, work)
    with database.read() as connection:
        assert profiles.find(connection, model, "mine").policy == Policy(
            1000, tags={"tag_00": 5000, "tag_01": 5000, "tag_02": 5000}
        )


@pytest.mark.parametrize("wanted", ["", "@", "mine@", "mine@01", "mine@1@1", "mi\0ne", "mine@\0", "mi\udcffne", "MINE"])
def test_a_profile_is_found_by_its_very_name(database: Database, model: Model, wanted: str) -> None:
    """Whatever else is asked for is a sentence, in either database."""
    save(database, model, "mine", Policy(3000))
    with database.read() as connection:
        if wanted == "mine@":
            assert profiles.find(connection, model, wanted).label == "mine@1"
            return
        with pytest.raises(ThresholdError, match="Saved are: mine@1"):
            profiles.find(connection, model, wanted)


def test_labels_are_those_of_every_profile(database: Database, model: Model, other_model: Model) -> None:
    for name, threshold in (("b", 3000), ("a", 3000), ("b", 4000)):
        save(database, model, name, Policy(threshold))
    save(database, other_model, "c", Policy(10))
    with database.read() as connection:
        assert profiles.labels(connection, model) == ["a@1", "b@1", "b@2"]
