"""A rank that C++ aborts: where NCCL's watchdog did, for want of another rank, the job goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.launch.rank_job import RankJob
from tests.paths import ROOT

# As torch words it; the frames of its stack come after.
WATCHDOG = "  what():  [PG ID 0 PG GUID 0(default_pg) Rank 0] Process group watchdog thread "
PEER_IS_GONE = {
    "too late": "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=8) ran",
    "dead": "NCCL error: remote process exited or there was a network error",
    "unreachable": "ncclSystemError: It can be also caused by unexpected exit of a remote peer",
}
OWN_FAULT = {
    "an assertion on the device": "CUDA error: device-side assert triggered",
    "its own memory": "CUDA error: an illegal access\nno word of a remote process",
}


def _abort(log: Path, line: str) -> str:
    """A module that says `line` in its log and aborts, as C++ does that nobody catches."""
    return (
        "import os, pathlib, resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        f"pathlib.Path({str(log)!r}).write_text({line!r} + '\\nframe #0: c10::Error\\n' * 9)\n"
        "os.abort()\n"
    )


@pytest.mark.parametrize("why", PEER_IS_GONE.values(), ids=PEER_IS_GONE)
def test_a_rank_that_nccl_aborts_for_want_of_another_is_requeued(
    job: RankJob, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    job.save_step(8)
    aborts = _abort(job.log, f"{WATCHDOG}terminated with exception: {why}")
    assert job.run(aborts, rank=1) is False
    assert job.said == []
    assert "rank 1: NCCL's watchdog ended it" in capfd.readouterr().err
    assert job.run(aborts) is True
    assert job.said == ["started", "requeued"]


def test_a_rank_that_nccl_aborts_is_not_requeued_where_another_failed_by_itself(
    job: RankJob,
) -> None:
    aborts = _abort(job.log, f"{WATCHDOG}terminated with exception: {PEER_IS_GONE['dead']}")
    fails = "import sys; from pathlib import Path; from launch.records import JobFolder\n" + (
        f"JobFolder(Path({str(job.folder.path)!r})).add('failed', rank=1, line='boom')\n"
    )
    os.environ["PYTHONPATH"] += f":{ROOT}"
    with pytest.raises(SystemExit):
        job.run(fails + aborts)
    assert job.said == ["started", "failed"]


@pytest.mark.parametrize("why", ["", *OWN_FAULT.values()], ids=["without a word", *OWN_FAULT])
def test_a_rank_that_aborts_by_its_own_fault_fails_the_job(job: RankJob, why: str) -> None:
    with pytest.raises(SystemExit) as ended:
        job.run(_abort(job.log, f"{WATCHDOG}terminated with exception: {why}" if why else ""))
    assert ended.value.code == 128 + signal.SIGABRT
    assert job.events[-1].line == "killed by SIGABRT"
