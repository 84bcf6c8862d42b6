"""`--devices`: the selected devices, and the threads of each process."""

import logging
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from db.errors import SettingsError
from tagonce import settings
from tagonce.local import supervisor
from tests.fixtures.command import Outcome


def test_all_is_every_cuda_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert supervisor.named_devices("all") == ["cuda:0", "cuda:1", "cuda:2"]


def test_all_without_a_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError, match="no CUDA GPU was found"):
        supervisor.named_devices("all")


def test_a_list_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert supervisor.named_devices("cpu, cuda:1,cuda:1") == ["cpu", "cuda:1", "cuda:1"]


def test_a_gpu_that_is_not_there_is_said_before_any_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingsError, match="cuda:2 was not found, 2 CUDA GPUs visible here"):
        supervisor.named_devices("cuda:1,cuda:2")


UUIDS = ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "MIG-5c1a2b6f-0d8e-5a6e-9d3c-1e2f3a4b5c6d"]


@pytest.mark.parametrize(
    ("inherited", "devices", "seen"),
    [
        (None, ["cuda:0", "cuda:1"], ["0", "1"]),
        (None, ["cuda:1", "cuda:1"], ["1", "1"]),
        (None, ["cuda", "cpu"], ["0", "all"]),
        ("6, 3", ["cuda:0", "cuda:1"], ["6", "3"]),
        (",".join(UUIDS), ["cuda:1", "cuda:0"], UUIDS[::-1]),
    ],
)
def test_a_process_sees_no_gpu_but_its_own(
    inherited: str | None,
    devices: list[str],
    seen: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a process that sees all of them, whatever counts on GPU 0 being the current one makes a context there."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\necho "${{CUDA_VISIBLE_DEVICES-all}} $TAGONCE_DEVICE" > {tmp_path}/$$\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if inherited is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", inherited)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with caplog.at_level(logging.INFO):
        assert supervisor.Supervisor(supervisor.shares(settings.load(), devices, 2)).run() == 0
    started = re.findall(r"the worker on (\S+) is process (\d+)", caplog.text)
    found = [(device, (tmp_path / process).read_text().split()) for device, process in started]
    as_seen = ["cpu" if device == "cpu" else "cuda" for device in devices]
    assert found == [(device, [one, own]) for device, one, own in zip(devices, seen, as_seen, strict=True)]


@pytest.mark.parametrize("names", ["", "cuda:0,", ","])
def test_a_list_with_nothing_in_it_is_said(names: str) -> None:
    with pytest.raises(SettingsError, match="--devices is `all` or a list"):
        supervisor.named_devices(names)


def test_processes_share_the_cores() -> None:
    """Otherwise each process would use all cores."""
    shared = supervisor.shares(settings.load(), ["cpu", "cpu", "cuda:0"], 8)
    assert [(one.device, one.decoders, one.torch_threads) for one in shared] == [
        ("cpu", 2, 2),
        ("cpu", 2, 2),
        ("cuda:0", 2, 2),
    ]
    more = supervisor.shares(settings.load(decoders=5, torch_threads=1), ["cpu"] * 4, 2)
    assert {(one.decoders, one.torch_threads) for one in more} == {(5, 1)}
    assert supervisor.shares(settings.load(), ["cpu"] * 4, 2)[0].decoders == 1


def test_each_process_has_a_port_of_its_own_for_metrics() -> None:
    ports = {port: supervisor.shares(settings.load(metrics_port=port), ["cpu"] * 3, 2) for port in (None, 9000)}
    assert {given: [one.metrics_port for one in shared] for given, shared in ports.items()} == {
        None: [None, None, None],
        9000: [9000, 9001, 9002],
    }


def test_what_no_process_could_do_without_is_asked_for_before_any_starts(invoke: Callable[..., Outcome]) -> None:
    asked = invoke("worker", "--devices", "cpu,cpu")
    assert asked.code == 2
    assert asked.err.count("TAGONCE_BROKER_URL") == 1
