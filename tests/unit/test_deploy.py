"""The files of deploy/ agree with each other, with the Compose specification and with the program.

No Docker engine is needed. What only an engine can show is listed at the end of deploy/README.md.
"""

import copy
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from tagonce.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SECRETS = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD", "TAGONCE_REVIEW_TOKEN"}
OURS = ("worker", "worker-cpu", "producer")

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<operator>[-?])(?P<word>[^}]*))?\}")
"""`${NAME}`, `${NAME:-default}` and `${NAME:?message}`: what compose.yaml uses of Compose's interpolation."""


class NotSetError(Exception):
    """Compose would stop here and print the name and the message."""


def interpolate(node: Any, values: dict[str, str]) -> Any:
    """What Compose makes of a parsed file: variables replaced, names without a value looked up or left out."""

    def replace(match: re.Match[str]) -> str:
        name, operator, word = match["name"], match["operator"], match["word"]
        if values.get(name):
            return values[name]
        if operator == "-":
            return word
        raise NotSetError(f"{name} {word}")

    if isinstance(node, dict):
        filled = {key: interpolate(value, values) for key, value in node.items()}
        if isinstance(environment := node.get("environment"), dict):
            passed_on = {key: values.get(key) for key, value in environment.items() if value is None}
            filled["environment"] |= passed_on
            filled["environment"] = {k: v for k, v in filled["environment"].items() if v is not None}
        return filled
    if isinstance(node, list):
        return [interpolate(item, values) for item in node]
    return VARIABLE.sub(replace, node) if isinstance(node, str) else node


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def example() -> dict[str, str]:
    """env.example as it is: the secrets are empty."""
    return {name: value or "" for name, value in dotenv_values(DEPLOY / "env.example").items()}


@pytest.fixture(scope="module")
def filled(example: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """env.example after a person has filled in the secrets; the URLs take the passwords from there."""
    text = (DEPLOY / "env.example").read_text(encoding="utf-8")
    for name in SECRETS:
        text = text.replace(f"\n{name}=\n", f"\n{name}=secret-of-{name.lower()}\n")
    env = tmp_path_factory.mktemp("deploy") / ".env"
    env.write_text(text, encoding="utf-8")
    return {name: value or "" for name, value in dotenv_values(env).items()}


@pytest.fixture(scope="module")
def services(raw: dict[str, Any], filled: dict[str, str]) -> dict[str, Any]:
    return interpolate(raw, filled)["services"]


def check_schema(document: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Validate with the JSON schema of the Compose specification that check-jsonschema carries. No network."""
    path = folder / "compose.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- compose.yaml


def test_compose_follows_the_specification(raw: dict[str, Any], filled: dict[str, str], tmp_path: Path) -> None:
    """As it is after interpolation; and a typo would be noticed."""
    document = interpolate(raw, filled)
    good = check_schema(document, tmp_path)
    assert good.returncode == 0, good.stdout

    typo = copy.deepcopy(document)
    typo["services"]["worker"]["stop_grace_periode"] = "60s"
    bad = check_schema(typo, tmp_path)
    assert bad.returncode == 1
    assert "stop_grace_periode" in bad.stdout


def test_readme_examples_follow_the_specification(tmp_path: Path) -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        result = check_schema(yaml.safe_load(block), tmp_path)
        assert result.returncode == 0, result.stdout


def test_every_secret_has_to_be_set(raw: dict[str, Any], example: dict[str, str], filled: dict[str, str]) -> None:
    """No password has a default, neither in env.example nor in compose.yaml."""
    assert {name for name, value in example.items() if not value} == SECRETS
    for name in SECRETS:
        with pytest.raises(NotSetError, match=name):
            interpolate(raw, filled | {name: ""})


def test_env_example_explains_every_variable_and_no_other(raw: dict[str, Any]) -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    used = {match["name"] for match in VARIABLE.finditer(text)}
    for service in raw["services"].values():
        used |= {name for name, value in service.get("environment", {}).items() if value is None}
    explained = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=", (DEPLOY / "env.example").read_text(), flags=re.MULTILINE))
    assert used == explained


def test_what_is_commented_out_in_env_example_is_the_default() -> None:
    """The value that a line shows is the program's own. Where compose.yaml or the device decides, it is left out."""
    text = (DEPLOY / "env.example").read_text(encoding="utf-8")
    decided_elsewhere = {"batch_size", "device", "metrics_host", "decoders", "torch_threads", "max_pixels_in_flight"}
    examples = {"roots", "max_idle", "log_format"}  # by default there is no limit, and text is for people
    lines = re.findall(r"^(?:# )?TAGONCE_(\w+)=([^$\n]+)$", text, flags=re.MULTILINE)
    shown = {name.lower(): value for name, value in lines}
    assert len(shown) > len(decided_elsewhere)
    for name in shown.keys() - decided_elsewhere - examples:
        field = Settings.model_fields[name]
        assert float(shown[name]) == field.default if shown[name][0].isdigit() else shown[name] == str(field.default)


def test_a_variable_that_is_not_set_is_not_passed_on_empty(services: dict[str, Any]) -> None:
    """An empty AWS_REGION or TAGONCE_BATCH_SIZE is a wrong value, not a missing one."""
    assert "AWS_REGION" not in services["worker"]["environment"]
    assert "TAGONCE_BATCH_SIZE" not in services["worker"]["environment"]
    assert services["worker"]["environment"]["TAGONCE_MODEL"] == "jtp-2"


def test_passwords_arrive_in_the_urls(services: dict[str, Any]) -> None:
    environment = services["producer"]["environment"]
    assert "tagonce:secret-of-postgres_password@postgres:5432" in environment["TAGONCE_DATABASE_URL"]
    assert ":secret-of-redis_password@redis:6379" in environment["TAGONCE_BROKER_URL"]


def test_producer_and_workers_see_the_same_world(services: dict[str, Any]) -> None:
    """Same settings but for the device, and the same folders at the same paths: file references depend on it."""
    own = {"TAGONCE_DEVICE", "CUDA_VISIBLE_DEVICES"}
    settings = [{k: v for k, v in services[name]["environment"].items() if k not in own} for name in OURS]
    assert settings[0] == settings[1] == settings[2]
    folders = [{volume for volume in services[name]["volumes"] if volume.endswith(":ro")} for name in OURS]
    assert folders[0] == folders[1] == folders[2] == {"./images:/images:ro", "./models:/models:ro"}


def test_ports_are_published_on_the_loopback_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_services_refer_to_is_there(services: dict[str, Any], raw: dict[str, Any]) -> None:
    """An image or a build, a health check where others wait for it, and exactly the volumes that are declared."""
    named = set()
    for service in services.values():
        assert ("image" in service) != ("build" in service)
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert services[other]["healthcheck"]["test"]
        named |= {volume.split(":")[0] for volume in service["volumes"] if not volume.startswith(".")}
    assert named == raw["volumes"].keys()


def test_a_stop_leaves_time_to_hand_chunks_back(services: dict[str, Any]) -> None:
    """Twice the grace at least: after it come the forward under way and one transaction."""
    grace = Settings.model_fields["grace_seconds"].default
    for name in ("worker", "worker-cpu"):
        assert int(services[name]["stop_grace_period"].removesuffix("s")) >= 2 * grace


def test_redis_keeps_the_queue_and_evicts_nothing(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    wanted = {"--appendonly": "yes", "--appendfsync": "everysec", "--save": "", "--maxmemory-policy": "noeviction"}
    assert wanted.items() <= options.items()


def test_only_the_gpu_worker_asks_for_a_gpu(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "deploy" in service] == ["worker"]
    assert services["worker"]["environment"]["TAGONCE_DEVICE"] == "cuda"
    assert services["worker-cpu"]["environment"]["TAGONCE_DEVICE"] == "cpu"


# --- Dockerfile


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction of the Dockerfile and its arguments, comments gone and continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            keyword, _, arguments = line.partition(" ")
            yield keyword, arguments.strip()


STAGES = [arguments.split(" AS ")[1] for keyword, arguments in instructions() if keyword == "FROM"]
COPIES = [arguments.split() for keyword, arguments in instructions() if keyword == "COPY"]
SOURCES = sorted({source for words in COPIES if not words[0].startswith("--from") for source in words[:-1]})


def test_compose_builds_targets_that_exist(services: dict[str, Any]) -> None:
    built = [service["build"] for service in services.values() if "build" in service]
    assert {build["target"] for build in built} == {"producer", "worker", "flower"} <= set(STAGES)
    for build in built:
        assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


def test_stages_are_declared_before_they_are_used() -> None:
    seen: list[str] = []
    for keyword, arguments in instructions():
        for stage in re.findall(r"(?:--|,)from=([\w-]+)", arguments):
            assert stage in seen
        if keyword == "FROM":
            base, name = arguments.split(" AS ")
            assert base in seen or ":" in base
            seen.append(name)


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_copied_exists_and_reaches_the_builder(source: str) -> None:
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert (ROOT / source).exists()
    assert any(Path(source).is_relative_to(path) for path in allowed)


@pytest.mark.parametrize("target", ["producer", "worker", "flower"])
def test_images_do_not_run_as_root(target: str) -> None:
    name, users = "", {}
    for keyword, arguments in instructions():
        name = arguments.split(" AS ")[1] if keyword == "FROM" else name
        if keyword == "USER":
            users[name] = arguments
    assert users[target] == "10001"


# --- the scripts of the images


def listed(*extras: str) -> list[str]:
    command = [sys.executable, "deploy/requirements.py", *extras]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_requirements_of_the_producer_have_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    producer, worker = listed("postgres", "parquet"), listed("postgres", "worker")
    assert set(project["dependencies"]) <= set(producer) & set(worker)
    assert not any(line.startswith("torch") for line in producer)
    assert any(line.startswith("torch") for line in worker)


def test_extras_made_of_extras_are_resolved() -> None:
    assert set(listed("local")) == set(listed("worker", "embedded"))


def test_an_unknown_extra_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        listed("gpu")
    assert "no extra 'gpu'" in caught.value.stderr
    assert "worker" in caught.value.stderr


def test_flower_looks_under_the_prefix_of_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGONCE_BROKER_URL", "redis://127.0.0.1:1/0")
    app = runpy.run_path(str(DEPLOY / "flower_app.py"))["app"]
    assert app.conf.broker_transport_options["global_keyprefix"] == "tagonce:"
