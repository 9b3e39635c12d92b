"""Each rank's log of each start of the workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spml_dist import comm
from spml_dist.errors import RunError
from spml_dist.run_folder import RunFolder
from spml_dist.training import rank_log
from tests.spawn import spawn


def twice(rank: int, folder: Path) -> list[str]:
    """Two attempts, of which rank 1 does not survive the first one."""
    names = []
    for attempt in range(2):
        try:
            with rank_log.kept(RunFolder(folder), output=True) as logs:
                names.append(logs.name)
                comm.barrier()
                os.write(2, f"a library's line {attempt}\n".encode())
                print("Python's line")
                if rank == 1 and attempt == 0:
                    raise ValueError("a mistake of the code")
        except ValueError:
            pass
        comm.barrier()
    os.write(2, b"nobody's line\n")
    return names


def test_every_rank_and_start_has_its_own(tmp_path: Path):
    assert spawn(twice, 2, tmp_path, seconds=100) == [["attempt_0001", "attempt_0002"]] * 2
    logs = tmp_path / "logs"
    assert os.readlink(logs / "latest") == "attempt_0002"
    files = sorted(str(path.relative_to(logs)) for path in logs.glob("attempt_*/*"))
    assert files == [f"attempt_000{attempt}/rank_0000{rank}.log" for attempt in (1, 2) for rank in (0, 1)]
    failed, whole = ((logs / f"attempt_000{number}" / "rank_00001.log").read_text() for number in (1, 2))
    assert " rank 1 of 2 on " in failed and "ValueError: a mistake of the code" in failed
    assert "a library's line 0\n" in failed and "Python's line\n" in failed
    assert "a library's line 1\n" in whole and "Traceback" not in whole and whole.endswith(" ends\n")
    assert "nobody's line" not in whole


def test_what_lies_beside_the_attempts_is_none(tmp_path: Path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/attempt_0007.tar.gz").touch()
    with rank_log.kept(RunFolder(tmp_path), output=False) as logs:
        assert logs.name == "attempt_0001"


def test_a_users_mistake_is_a_line(tmp_path: Path):
    with pytest.raises(RunError), rank_log.kept(RunFolder(tmp_path), output=False):
        raise RunError("the bank", 3, "mend it")
    text = (tmp_path / "logs" / "latest" / "rank_00000.log").read_text()
    assert text.count("\n") == 2 and "ends: the bank" in text


def test_storage_that_refuses_keeps_nobody_from_training(tmp_path: Path):
    (tmp_path / "logs").write_text("a file where the folder has to be")
    with rank_log.kept(RunFolder(tmp_path), output=True):
        pass
