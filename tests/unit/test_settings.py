"""Settings: where they come from, which one wins, and what is said when they are wrong."""

import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from db.errors import SettingsError
from tagonce import settings
from tagonce.settings import Settings, load

ENV_EXAMPLE = Path(__file__).parents[2] / "deploy" / "env.example"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No .env but the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_any_setting_there_are_defaults() -> None:
    config = load()
    assert config.database_url == settings.DEFAULT_DATABASE
    assert (config.broker_url, config.model, config.floor_score) == (None, "jtp-2", 100)


def test_an_option_wins_over_the_environment_and_that_over_env(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = "TAGONCE_CHUNK_SIZE=1\nTAGONCE_FETCHERS=1\nTAGONCE_MODEL=demo\n"
    (empty_folder / ".env").write_text(env)
    monkeypatch.setenv("TAGONCE_CHUNK_SIZE", "2")
    monkeypatch.setenv("TAGONCE_FETCHERS", "2")
    config = load(chunk_size=3)
    assert (config.chunk_size, config.fetchers, config.model) == (3, 2, "demo")


def test_an_option_that_was_not_given_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGONCE_MODEL", "demo")
    assert load(model=None, batch_size=None) == load()
    assert load(model=None).model == "demo"


def test_an_env_file_may_hold_what_is_not_ours(empty_folder: Path) -> None:
    """Compose, boto3 and the Hugging Face hub read the same file."""
    (empty_folder / ".env").write_text("POSTGRES_PASSWORD=x\nAWS_REGION=eu-west-1\nTAGONCE_DEVICE=cpu\n")
    assert load().device == "cpu"


def test_an_env_file_feeds_the_libraries(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3, the hub and libpq read the environment alone. What is set there wins; nobody else's names are taken."""
    text = (
        "\ufeffTAGONCE_DEVICE=cpu\n"
        "AWS_ENDPOINT_URL_S3=http://storage      # only where it is not Amazon's\n"
        "AWS_PROFILE=\nAWS_REGION=eu-west-1\nexport HF_TOKEN='hf_x'\nPGPASSWORD=p\nLD_PRELOAD=/x.so\nPATH=/x\n"
    )
    (empty_folder / ".env").write_text(text, encoding="utf-8")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    path = os.environ["PATH"]
    for name in ("AWS_ENDPOINT_URL_S3", "HF_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, "restored after the test")
        monkeypatch.delenv(name)
    assert load().device == "cpu"
    assert os.environ["AWS_ENDPOINT_URL_S3"] == "http://storage"
    assert (os.environ["HF_TOKEN"], os.environ["PGPASSWORD"]) == ("hf_x", "p")
    assert os.environ["AWS_REGION"] == "us-east-1"
    assert not {"AWS_PROFILE", "LD_PRELOAD"} & set(os.environ)
    assert os.environ["PATH"] == path


def test_an_env_file_that_is_no_text_is_one_sentence(empty_folder: Path) -> None:
    (empty_folder / ".env").write_bytes("TAGONCE_DEVICE=cpu\n".encode("utf-16"))
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8 .* Save it as UTF-8"):
        load()


def test_all_that_is_wrong_is_named_at_once_as_the_person_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment and options alike, each with its name and what it has to be."""
    wrong = {"CHUNK_SIZE": "0", "FLOOR": "1.5", "PRECISION": "fp8", "FETCHERS": "many", "LEASE_SECONDS": "2"}
    for name, value in wrong.items():
        monkeypatch.setenv(f"TAGONCE_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load(batch_size=0)
    first, *lines = str(caught.value).splitlines()
    assert first == "Some settings are wrong:"
    named = {line.split(":")[0].strip() for line in lines}
    assert named == {f"TAGONCE_{name}" for name in (*wrong, "BATCH_SIZE")}
    said = str(caught.value)
    assert "TAGONCE_FLOOR: It is a number between 0 and 1, not 1.5." in said
    assert "TAGONCE_PRECISION: Input should be 'auto', 'fp32', 'fp16' or 'bf16'" in said


def test_a_floor_has_at_most_four_decimals() -> None:
    assert load(floor=0).floor_score == 0
    assert load(floor=0.0001).floor_score == 1
    with pytest.raises(SettingsError, match=r"TAGONCE_FLOOR: .* at most four decimals"):
        load(floor=0.00001)


def test_a_broker_is_asked_for_only_where_it_is_needed() -> None:
    assert load(broker_url="redis://queue").need_broker() == "redis://queue"
    with pytest.raises(SettingsError, match=r"TAGONCE_BROKER_URL \(or --broker\) is not set.*`tagonce tag`"):
        load().need_broker()


def test_settings_do_not_change_while_a_command_runs() -> None:
    config = load()
    with pytest.raises(ValidationError, match="frozen"):
        config.floor = 0.5  # type: ignore[misc]


def test_the_file_of_an_sqlite_url() -> None:
    assert settings.database_file("sqlite:///tags.db") == Path("tags.db")
    assert settings.database_file("sqlite:////data/tags.db") == Path("/data/tags.db")
    assert settings.database_file("postgresql://localhost/tags") is None


def test_the_example_file_shows_every_setting_and_no_other() -> None:
    """`deploy/env.example` is where a person looks; it must not fall behind."""
    shown = set(
        re.findall(r"^(?:# )?TAGONCE_([A-Z0-9_]+)=", ENV_EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    assert shown == {name.upper() for name in Settings.model_fields}


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
