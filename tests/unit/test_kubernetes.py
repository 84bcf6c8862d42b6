"""The manifests of deploy/kubernetes follow the schemas of Kubernetes, KEDA and the Prometheus operator, and agree.

No cluster is needed. What only a cluster can show is listed at the end of deploy/README.md.
"""

import copy
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from producer.queue.broker import queue_name
from tagonce.cli import load
from tagonce.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.29", "1.37")
"""Of Kubernetes: the oldest for which these are meant, and the newest with a schema here."""
KUSTOMIZE = ("Kustomization", "Component")


@functools.cache
def custom() -> dict[str, type[BaseModel]]:
    """Models that cloudcoil generates from the definitions that the two projects publish (KEDA 2.16, operator 0.80).

    Importing them takes seconds. Every process of pytest collects this file, and one runs it.
    """
    from cloudcoil.models.keda import v1alpha1 as keda
    from cloudcoil.models.prometheus_operator import v1 as prometheus

    kinds = (keda.ScaledObject, keda.TriggerAuthentication, prometheus.PodMonitor, prometheus.PrometheusRule)
    return {kind.__name__: kind for kind in kinds}


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(FOLDER.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield str(path.relative_to(FOLDER)), document


ALL = list(documents())
OBJECTS = [document for _path, document in ALL if document["kind"] not in KUSTOMIZE]


def label(document: dict[str, Any]) -> str:
    metadata = document["metadata"]
    return f"{document['kind']}/{metadata.get('name') or metadata['generateName']}"


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [document for document in OBJECTS if label(document) == f"{kind}/{name}"]
    return found


def check(document: dict[str, Any]) -> None:
    """Unknown and missing fields, wrong types, in our own objects and in those of others.

    Raises:
        ValueError: something is wrong.
    """
    model = custom().get(document["kind"])
    if model is None:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise ValueError(f"{label(document)}, {version}: {error.message}") from error
        return
    # A field that the model does not know is not in what it gives back.
    known = model.model_validate(document).model_dump(mode="json", by_alias=True, exclude_unset=True)
    if known != document:
        raise ValueError(f"{label(document)}: something in it is unknown")


# --- schemas


@pytest.mark.parametrize("document", OBJECTS, ids=label)
def test_objects_follow_their_schema(document: dict[str, Any]) -> None:
    check(document)


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "tagonce-worker", ("spec", "template", "spec", "terminationGracePeriod"), 60),
        ("CronJob", "tagonce-reconcile", ("spec", "concurrencyPolicy"), 1),
        ("ScaledObject", "tagonce-worker", ("spec", "cooldownPeriods"), 600),
        ("ScaledObject", "tagonce-worker", ("spec", "advanced", "scalingModifiers", "target"), 40),
        ("TriggerAuthentication", "tagonce-redis", ("spec", "secretTargetRefs"), []),
        ("PodMonitor", "tagonce-worker", ("spec", "selectors"), {}),
        ("PrometheusRule", "tagonce", ("spec", "groups"), [{"name": "x", "rules": [{"expression": "1"}]}]),
    ],
)
def test_a_mistake_would_be_noticed(kind: str, name: str, path: tuple[str, ...], value: object) -> None:
    document = copy.deepcopy(named(kind, name))
    node = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises((ValueError, ValidationError)):
        check(document)


def test_kustomize_names_every_file_and_no_other() -> None:
    """`kubectl kustomize` itself runs in no test. What it would be asked to read is there, and nothing is forgotten."""
    reached: set[Path] = set()
    for path, document in ALL:
        if document["kind"] not in KUSTOMIZE:
            continue
        reached.add(FOLDER / path)
        for name in [*document.get("resources", ()), *document.get("components", ())]:
            target = (FOLDER / path).parent / name
            reached.add(target / "kustomization.yaml" if target.is_dir() else target)
    text = (FOLDER / "kustomization.yaml").read_text(encoding="utf-8")
    reached |= {
        FOLDER / name / "kustomization.yaml" for name in re.findall(r"^  # - (components/\w+)", text, re.MULTILINE)
    }
    by_hand = {FOLDER / "secrets.example.yaml", FOLDER / "enqueue.example.yaml"}
    assert reached | by_hand == set(FOLDER.rglob("*.yaml"))


def test_patches_change_what_is_there() -> None:
    component = yaml.safe_load((FOLDER / "components" / "tls" / "kustomization.yaml").read_text(encoding="utf-8"))
    for patch in component["patches"]:
        document = copy.deepcopy(named(patch["target"]["kind"], patch["target"]["name"]))
        for operation in yaml.safe_load(patch["patch"]):
            *path, last = operation["path"].strip("/").split("/")
            node: Any = document
            for key in path:
                node = node[int(key)] if isinstance(node, list) else node[key]
            if last == "-":
                node.append(operation["value"])
            else:
                node[last] = operation["value"]
        check(document)


TRIGGER = {"address", "listName", "listLength", "activationListLength", "enableTLS", "databaseIndex"}
"""What we use, or might, of the metadata of KEDA's redis trigger, which the schema leaves open.
https://keda.sh/docs/2.16/scalers/redis-lists/"""


def test_triggers_say_what_kedas_redis_scaler_reads() -> None:
    for trigger in named("ScaledObject", "tagonce-worker")["spec"]["triggers"]:
        assert trigger["type"] == "redis"
        assert {"address", "listName", "listLength"} <= trigger["metadata"].keys() <= TRIGGER
    read = {"username", "password", "ca"}
    assert {
        each["parameter"] for each in named("TriggerAuthentication", "tagonce-redis")["spec"]["secretTargetRef"]
    } <= read


# --- pods


def pod_spec(document: dict[str, Any]) -> dict[str, Any] | None:
    spec = document.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return template["spec"] if template else None


PODS = {label(document): spec for document in OBJECTS if (spec := pod_spec(document))}
OURS = {name: pod for name, pod in PODS.items() if "redis" not in name}
WORKER = PODS["Deployment/tagonce-worker"]


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    return only


def test_there_are_the_pods_that_we_think_of() -> None:
    assert set(OURS) == {
        "Deployment/tagonce-worker",
        "Job/tagonce-migrate",
        "Job/tagonce-enqueue-",
        "CronJob/tagonce-reconcile",
    }


@pytest.mark.parametrize("pod", PODS.values(), ids=list(PODS))
def test_pods_may_run_where_the_restricted_standard_is_enforced(pod: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    one = container(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"]["allowPrivilegeEscalation"] is False
    assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert one["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    assert {"memory"} <= one["resources"]["limits"].keys()
    allowed = {"emptyDir", "secret", "configMap", "persistentVolumeClaim", "name"}
    assert all(volume.keys() <= allowed for volume in pod.get("volumes", ()))


@pytest.mark.parametrize("pod", OURS.values(), ids=list(OURS))
def test_pods_run_the_images_of_the_dockerfile_as_its_user(pod: dict[str, Any]) -> None:
    """With a command that exists. The version is that of the project."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
    images = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in kustomization["images"]}
    stages = re.findall(r" AS (\w+)$", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert all(name.removeprefix("tagonce-") in stages for name in images)
    assert all(image.endswith(f":{version}") for image in images.values())
    one = container(pod)
    assert one["image"] in images | dict.fromkeys(images.values())
    assert ("worker" in one["image"]) == (one["args"] == ["worker"])
    command = load(one["args"][0])
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in one["args"] if word.startswith("--")} <= options
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["enableServiceLinks"] is False


def test_only_workers_ask_for_a_gpu_and_for_one() -> None:
    gpus = {name: container(pod)["resources"]["limits"].get("nvidia.com/gpu") for name, pod in PODS.items()}
    assert {name: count for name, count in gpus.items() if count} == {"Deployment/tagonce-worker": "1"}
    assert {variable["name"]: variable.get("value") for variable in container(WORKER)["env"]}[
        "TAGONCE_DEVICE"
    ] == "cuda"


def test_a_worker_may_write_where_its_image_writes() -> None:
    mounts = {mount["mountPath"]: mount for mount in container(WORKER)["volumeMounts"]}
    writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    (declared,) = re.findall(r'^VOLUME \["(.+)"\]', dockerfile, re.MULTILINE)
    assert writable == {declared, "/tmp"}  # noqa: S108 - a path in a manifest


@pytest.mark.parametrize("pod", PODS.values(), ids=list(PODS))
def test_volumes_are_mounted_and_mounts_are_volumes(pod: dict[str, Any]) -> None:
    claims = [
        claim["metadata"]["name"] for claim in named("StatefulSet", "tagonce-redis")["spec"]["volumeClaimTemplates"]
    ]
    volumes = {volume["name"] for volume in pod.get("volumes", ())} | set(claims if pod not in OURS.values() else ())
    assert {mount["name"] for mount in container(pod)["volumeMounts"]} == volumes


# --- settings


def test_every_setting_exists_and_may_have_that_value() -> None:
    settings = named("ConfigMap", "tagonce-settings")["data"]
    secrets = named("Secret", "tagonce-secrets")["stringData"]
    names = {*settings, *secrets, *(variable["name"] for variable in container(WORKER)["env"])}
    ours = {name for name in names if name.startswith("TAGONCE_")}
    assert ours <= {f"TAGONCE_{name.upper()}" for name in Settings.model_fields}
    assert {name.partition("_")[0] for name in names - ours} == {"AWS", "CUDA", "TRITON"}
    Settings.model_validate({k.removeprefix("TAGONCE_").lower(): v for k, v in settings.items() if k in ours})
    assert "TAGONCE_MAX_IDLE" not in names


def test_what_others_know_of_the_settings_is_so() -> None:
    """The time to stop, the port of the probes, the limit in the alert, the list that KEDA counts."""
    settings = named("ConfigMap", "tagonce-settings")["data"]
    assert WORKER["terminationGracePeriodSeconds"] >= 2 * float(settings["TAGONCE_GRACE_SECONDS"])
    (port,) = container(WORKER)["ports"]
    assert str(port["containerPort"]) == settings["TAGONCE_METRICS_PORT"]
    alerts = {rule["alert"]: rule for rule in named("PrometheusRule", "tagonce")["spec"]["groups"][0]["rules"]}
    assert settings["TAGONCE_MAX_QUEUE"] in alerts["TagonceQueueNearlyFull"]["expr"]
    triggers = {trigger["name"]: trigger for trigger in named("ScaledObject", "tagonce-worker")["spec"]["triggers"]}
    assert triggers["waiting"]["metadata"]["listName"] == f"tagonce:{queue_name(1)}"
    assert triggers["in_flight"]["metadata"]["listName"] == "tagonce:unacked"
    modifiers = named("ScaledObject", "tagonce-worker")["spec"]["advanced"]["scalingModifiers"]
    assert set(re.findall(r"\w+", modifiers["formula"])) == set(triggers)


def test_no_secret_has_a_value() -> None:
    """But for the user's name, and for the line of one who may ask whether Valkey is there."""
    for document in OBJECTS:
        if document["kind"] == "Secret":
            values = {key: value for key, value in document["stringData"].items() if value}
            assert values.keys() <= {"username", "users.acl"}
    ignored = (ROOT / "deploy" / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "kubernetes/secrets.yaml" in ignored


# --- probes


def test_probes_of_workers_ask_the_metrics_port_and_wait_long_enough() -> None:
    one = container(WORKER)
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert one[kind]["httpGet"] == {"path": "/healthz", "port": one["ports"][0]["name"]}
    assert one["startupProbe"]["periodSeconds"] * one["startupProbe"]["failureThreshold"] >= 900
    assert one["livenessProbe"]["periodSeconds"] * one["livenessProbe"]["failureThreshold"] >= 300


def test_the_health_check_of_the_image_is_a_file_in_it() -> None:
    """`HEALTHCHECK` of the Dockerfile, which Compose uses and Kubernetes does not."""
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    worker = dockerfile.partition(" AS worker")[2]
    assert 'CMD ["python", "/opt/tagonce/healthcheck.py"]' in worker
    assert "WORKDIR /opt/tagonce\n" in worker
    assert "COPY deploy/healthcheck.py ./" in worker


# --- who refers to whom


def values_of(node: Any, *keys: str) -> Iterator[Any]:
    """Everything that stands below one of these keys, however deep."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in keys:
                yield value
            yield from values_of(value, *keys)
    elif isinstance(node, list):
        for item in node:
            yield from values_of(item, *keys)


def test_secrets_and_settings_that_are_named_are_there() -> None:
    there = {(document["kind"], document["metadata"].get("name")) for document in OBJECTS}
    for document in OBJECTS:
        for reference in values_of(document, "configMapRef"):
            assert ("ConfigMap", reference["name"]) in there
        for reference in values_of(document, "secretRef"):
            assert ("Secret", reference["name"]) in there
        for name in values_of(document, "secretName"):
            assert ("Secret", name) in there
        for references in values_of(document, "secretTargetRef"):
            for reference in references:
                assert reference["key"] in named("Secret", reference["name"])["stringData"]
        for reference in values_of(document, "authenticationRef"):
            assert ("TriggerAuthentication", reference["name"]) in there
    assert named("ScaledObject", "tagonce-worker")["spec"]["scaleTargetRef"] == {"name": "tagonce-worker"}


def pod_labels() -> list[dict[str, str]]:
    templates = [template for document in OBJECTS for template in values_of(document, "template")]
    return [template["metadata"]["labels"] for template in templates]


@pytest.mark.parametrize("document", OBJECTS, ids=label)
def test_what_is_selected_exists(document: dict[str, Any]) -> None:
    """Every selector of pods fits some, and a workload's own fits its template."""
    for found in values_of(document.get("spec", {}), "selector", "podSelector", "labelSelector"):
        wanted = found.get("matchLabels", found)
        assert any(wanted.items() <= labels.items() for labels in pod_labels())
    if document["kind"] in {"Deployment", "StatefulSet"}:
        assert document["spec"]["selector"]["matchLabels"] == document["spec"]["template"]["metadata"]["labels"]


def test_the_disruption_budget_and_the_monitor_mean_the_workers() -> None:
    labels = named("Deployment", "tagonce-worker")["spec"]["selector"]
    assert named("PodDisruptionBudget", "tagonce-worker")["spec"]["selector"] == labels
    assert named("PodMonitor", "tagonce-worker")["spec"]["selector"] == labels
    (endpoint,) = named("PodMonitor", "tagonce-worker")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == container(WORKER)["ports"][0]["name"]


def test_valkey_is_the_one_of_compose_and_is_where_the_others_look() -> None:
    """Same image, same guarantees for the queue; only how it asks for a password differs."""
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))["services"]["redis"]
    valkey = container(PODS["StatefulSet/tagonce-redis"])
    assert valkey["image"] == compose["image"]

    def options(command: list[str]) -> dict[str, str]:
        return dict(zip(command[1::2], command[2::2], strict=True))

    shared = options(compose["command"]).keys() - {"--requirepass"}
    assert {name: options(valkey["command"])[name] for name in shared} == {
        name: options(compose["command"])[name] for name in shared
    }
    service = named("Service", "tagonce-redis")
    address = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    triggers = named("ScaledObject", "tagonce-worker")["spec"]["triggers"]
    assert {trigger["metadata"]["address"] for trigger in triggers} == {address}
