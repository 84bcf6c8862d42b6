"""Cores by the quota of a container: both versions of control groups, as Docker and Kubernetes set them."""

import os
from pathlib import Path
from typing import cast

import pytest

from tagonce import from_settings, settings
from workers import cpus
from workers.models.spec import ModelSpec

MANY = set(range(64))


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root folder of the control groups, on a machine with 64 cores."""
    monkeypatch.setattr(cpus, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cpus, "_OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: MANY, raising=False)
    return tmp_path


def put(root: Path, own: str, **files: str) -> None:
    """Write the content of `/proc/self/cgroup`, and files by their path with `__` for `/`."""
    (root / "own").write_text(own)
    for name, content in files.items():
        path = root / "cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("max 100000\n", 64),
        ("9900000 100000\n", 64),
    ],
)
def test_version_2(group: Path, limit: str, expected: int) -> None:
    put(group, "0::/\n", **{"cpu.max": limit})
    assert cpus.cores() == expected


def test_the_least_of_a_group_and_those_above_it_counts(group: Path) -> None:
    files = {"pod__cpu.max": "400000 100000", "pod__one__cpu.max": "max 100000", "cpu.max": "max 100000"}
    put(group, "0::/pod/one\n", **files)
    assert cpus.cores() == 4


@pytest.mark.parametrize("mounted", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize("path", ["", "docker__abc__"])
def test_version_1(group: Path, mounted: str, path: str) -> None:
    """In a container the path is that of the host, and its own group is mounted as root."""
    files = {f"{mounted}__{path}cpu.cfs_quota_us": "300000\n", f"{mounted}__{path}cpu.cfs_period_us": "100000\n"}
    put(group, "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n", **files)
    assert cpus.cores() == 3


def test_version_1_without_a_quota(group: Path) -> None:
    put(group, "3:cpu,cpuacct:/\n", **{"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"})
    assert cpus.quota() is None
    assert cpus.cores() == len(MANY)


def test_without_control_groups_or_with_files_of_another_kind(group: Path) -> None:
    assert cpus.cores() == len(MANY)
    put(group, "0::/../elsewhere\n", **{"cpu.max": "nonsense"})
    assert cpus.cores() == len(MANY)


def test_cores_that_the_process_may_not_run_on_do_not_count(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 5}, raising=False)
    put(group, "0::/\n", **{"cpu.max": "800000 100000"})
    assert cpus.cores() == 2


@pytest.mark.parametrize(("limit", "threads"), [(3.0, 3), (None, None)])
def test_a_forward_takes_no_more_threads_than_the_quota_gives(
    limit: float | None, threads: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Torch counts the visible cores, which is right without a quota."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(from_settings, "quota", lambda: limit)
    monkeypatch.setattr(cpus, "quota", lambda: limit)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2}, raising=False)
    spec = cast("ModelSpec", None)  # asked only for a batch size that is measured
    options = from_settings.worker_options(settings.load(device="cpu"), spec)
    assert options.torch_threads == threads
    assert options.decoders == 3
    assert from_settings.worker_options(settings.load(device="cpu", torch_threads=7), spec).torch_threads == 7


def test_every_setting_of_a_worker_is_in_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    stated = {
        "batch_size": 5,
        "device": "cpu",
        "precision": "bf16",
        "compile": True,
        "torch_threads": 4,
        "concurrency": 6,
        "fetchers": 7,
        "decoders": 9,
        "max_pixels": 10,
        "max_bytes": 11,
        "max_pixels_in_flight": 12,
        "roots": ("/a", "/b"),
        "update_index": False,
        "grace_seconds": 13.0,
        "stall_seconds": 14.0,
        "max_idle": 15.0,
    }
    options = from_settings.worker_options(settings.load(**stated), cast("ModelSpec", None))
    assert options.model_dump() == stated
