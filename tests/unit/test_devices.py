"""`--devices`: the selected devices, and the threads of each process."""

from collections.abc import Callable

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


def test_a_list_is_taken_as_it_is() -> None:
    assert supervisor.named_devices("cpu, cuda:1") == ["cpu", "cuda:1"]


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
