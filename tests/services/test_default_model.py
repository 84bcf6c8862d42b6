"""The model that is used if none is given."""

from collections.abc import Callable
from pathlib import Path

import pytest

from db.errors import SettingsError
from tagonce import from_settings, settings
from tagonce.from_settings import with_stored_model
from tests.fixtures.command import Outcome
from tests.services.conftest import make_model


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_only_model_of_the_database_with_its_floor(database_url: str) -> None:
    """On both databases. With an empty database, or none, the default stays."""
    assert with_stored_model(settings.load(database_url=database_url)).model == "jtp-2"
    config = settings.load(database_url=database_url)
    with from_settings.stored(config, create=True) as opened:
        assert with_stored_model(config).model == "jtp-2"
        make_model(opened, "demo", floor=500)
        found = with_stored_model(config)
        assert (found.model, found.floor) == ("demo", 0.05)
        assert found.as_environment()["TAGONCE_MODEL"] == "demo", "the worker gets the name"
        assert with_stored_model(settings.load(database_url=database_url, floor=0.02)).floor == 0.02
        assert with_stored_model(settings.load(database_url=database_url, model="jtp-2")).model == "jtp-2"
        make_model(opened, "wd-vit-v3")
        with pytest.raises(SettingsError, match=r"has scores of several: demo, wd-vit-v3\. Choose one"):
            with_stored_model(config)
        make_model(opened, "jtp-2")
        assert with_stored_model(config).model == "jtp-2"


def test_a_model_from_a_folder_has_to_be_named_where_its_files_are_needed(sqlite_url: str) -> None:
    config = settings.load(database_url=sqlite_url)
    with from_settings.stored(config, create=True) as opened:
        make_model(opened, "mine")
    with pytest.raises(SettingsError, match=r"scores of mine, a model from a folder.*--model FOLDER"):
        with_stored_model(config)
    assert with_stored_model(config, files=False).model == "mine"


def test_tag_says_so_before_it_looks_for_jtp(sqlite_url: str, tmp_path: Path, invoke: Callable[..., Outcome]) -> None:
    """Looking for JTP would try a download for a minute."""
    with from_settings.stored(settings.load(database_url=sqlite_url), create=True) as opened:
        make_model(opened, "mine")
    (tmp_path / "a.jpg").write_bytes(b"x")
    for command in (("tag", "a.jpg", "--database", sqlite_url), ("predict", "a.jpg")):
        done = invoke(*command, TAGONCE_DATABASE_URL=sqlite_url)
        assert done.code == 2
        assert "--model FOLDER" in done.err
