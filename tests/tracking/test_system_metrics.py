"""How busy every node is, by one process of each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from spml_dist.tracking import system_metrics


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)


def entries(path: Path) -> list[dict]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_the_shortest_run_has_a_reading(tmp_path):
    with system_metrics.watched(tmp_path):
        pass
    (entry,) = entries(tmp_path / "system" / "node_0.jsonl")
    assert entry["step"] == 1 and entry["timestamp"] > 1.7e12 and entry["host"]
    assert 0 <= entry["cpu_utilization_percentage"] <= 100
    assert 0 < entry["system_memory_usage_percentage"] <= 100
    assert entry["network_receive_megabytes"] >= 0


def test_readings_are_made_all_the_time(tmp_path, monkeypatch):
    monkeypatch.setenv(system_metrics.INTERVAL, "0.01")
    path = tmp_path / "system" / "node_0.jsonl"
    with system_metrics.watched(tmp_path):
        while not path.exists() or len(path.read_text().splitlines()) < 3:
            pass
    assert [entry["step"] for entry in entries(path)][:4] == [1, 2, 3, 4]


@pytest.mark.parametrize(("variable", "launcher"), [("NODE_RANK", "Ray"), ("GROUP_RANK", "torchrun")])
def test_a_node_is_known_by_its_number(tmp_path, monkeypatch, variable, launcher):
    monkeypatch.setenv(variable, "3")
    with system_metrics.watched(tmp_path):
        pass
    assert os.listdir(tmp_path / "system") == ["node_3.jsonl"], launcher


def test_only_the_first_process_of_a_node_watches(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with system_metrics.watched(tmp_path):
        pass
    assert not (tmp_path / "system").exists()


def test_a_restart_counts_on_after_a_torn_line(tmp_path):
    path = tmp_path / "system" / "node_0.jsonl"
    path.parent.mkdir()
    path.write_text('{"step": 1}\n{"st')
    with system_metrics.watched(tmp_path):
        pass
    *_, torn, last = path.read_text().splitlines()
    assert torn == '{"st' and json.loads(last)["step"] == 3


def test_a_disk_that_refuses_costs_the_readings_only(tmp_path):
    (tmp_path / "system").write_text("in the way")
    with system_metrics.watched(tmp_path):
        pass
    assert (tmp_path / "system").read_text() == "in the way"


def test_gpus_are_read_where_the_vendors_library_answers(monkeypatch):
    monkeypatch.setattr(system_metrics.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(system_metrics.torch.cuda, "utilization", lambda number: 40)
    monkeypatch.setattr(system_metrics.torch.cuda, "device_memory_used", lambda number: 2_000_000)
    monkeypatch.setattr(system_metrics.torch.cuda, "power_draw", lambda number: 300_000)
    now = system_metrics.readings()
    assert now["gpu_0_utilization_percentage"] == 40
    assert now["gpu_0_memory_usage_megabytes"] == 2
    assert now["gpu_0_power_usage_watts"] == 300


@pytest.mark.parametrize("trouble", [ModuleNotFoundError("no nvidia-ml-py"), Exception("Not Supported")])
def test_a_counter_that_a_gpu_has_not_is_left_out_alone(monkeypatch, trouble):
    def refuse(number: int) -> int:
        raise trouble

    monkeypatch.setattr(system_metrics.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(system_metrics.torch.cuda, "utilization", refuse)
    monkeypatch.setattr(system_metrics.torch.cuda, "device_memory_used", lambda number: 2_000_000)
    monkeypatch.setattr(system_metrics.torch.cuda, "power_draw", refuse)
    now = system_metrics.readings()
    assert [name for name in now if name.startswith("gpu")] == ["gpu_0_memory_usage_megabytes"]
    assert now["cpu_utilization_percentage"] >= 0
