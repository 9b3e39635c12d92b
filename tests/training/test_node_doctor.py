"""What is told of a cluster's nodes from what each of them found; their meeting by two processes."""

from __future__ import annotations

import socket
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from spml_dist.training.doctor import Finding
from spml_dist.training.node_doctor import Look, Meeting, compared, meet, met


def look(*findings: Finding) -> Look:
    return Look(findings, 1)


class TestCompared:
    def test_what_is_the_same_everywhere_is_told_once(self):
        same = Finding("torch", "2.14.1")
        assert list(compared({"a": look(same), "b": look(same)})) == [same]

    def test_another_version_names_the_nodes(self):
        looks = {"a": look(Finding("spml-dist", "0.1.0")), "b": look(Finding("spml-dist", "0.2.0"))}
        (finding,) = compared(looks)
        assert finding.value == "0.1.0 on a; 0.2.0 on b" and "same version" in finding.remedy

    def test_so_does_one_that_a_node_lacks(self):
        looks = {"a": look(Finding("FAISS", "1.12")), "b": look(Finding("FAISS", "not installed", "pip"))}
        assert not next(compared(looks)).well

    def test_what_differs_otherwise_is_each_node_s_own(self):
        few = Finding("open files", "256", "ulimit -n 4096")
        looks = {"a": look(Finding("open files", "4,096")), "b": look(few)}
        first, second = compared(looks)
        assert (first.name, first.well) == ("open files, a", True)
        assert (second.name, second.remedy) == ("open files, b", "ulimit -n 4096")


class TestMet:
    def test_nodes_that_are_well(self, tmp_path: Path):
        findings = list(met(["a", "b"], [Meeting(0.01, 5.0, ()), Meeting(0.02, 5.1, ())], tmp_path))
        assert all(finding.well for finding in findings)
        assert findings[0].value.startswith("20.0 ms for 4 MB")

    def test_clocks_that_differ_by_an_hour(self):
        (clocks,) = [
            finding
            for finding in met(["a", "b"], [Meeting(0.1, 3605.0, ()), Meeting(0.1, 5.0, ())], None)
            if not finding.well
        ]
        assert clocks.value == "3600.0 s between b and a" and "NTP" in clocks.remedy

    def test_storage_of_their_own(self, tmp_path: Path):
        found = [Meeting(0.1, 5.0, (1,)), Meeting(0.1, 5.0, (0,))]
        (storage,) = [finding for finding in met(["a", "b"], found, tmp_path) if not finding.well]
        assert storage.value == "a does not see what b wrote; b does not see what a wrote"


@pytest.mark.timeout(400)
def test_two_nodes_meet_and_leave_nothing_behind(tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{probe.getsockname()[1]}"
    with ProcessPoolExecutor(2, get_context("forkserver")) as pool:
        running = [pool.submit(meet, place, tmp_path / "runs", "key", number, 2) for number in range(2)]
        found = [each.result() for each in running]
    assert [one.unread for one in found] == [(), ()] and all(one.seconds > 0 for one in found)
    assert abs(found[0].clock - found[1].clock) < 5
    assert list((tmp_path / "runs").iterdir()) == []
