"""The cluster of these tests does what a Slurm of many machines does."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster

# Ends with 0 on SIGTERM, in srun's tasks too, so that no case waits for KillWait.
_JOB = """\
#!/bin/bash
#SBATCH --job-name=cluster --nodes=2 --ntasks-per-node=1 --mem=100 --time=1 --signal=USR2@60
#SBATCH --output={folder}/%j.out --open-mode=append
srun --label bash -c '
trap "echo USR2 of $SLURM_PROCID" USR2
trap "exit 0" TERM
echo restart ${{SLURM_RESTART_COUNT:-0}} of task $SLURM_PROCID on $SLURMD_NODENAME
{work}'
"""
_UNTIL_ENDED = "while true; do sleep 0.2; done"


def _submit(slurm: SlurmCluster, folder: Path, work: str, *arguments: str) -> tuple[int, Path]:
    """A queued job, and the file of what it says."""
    script = folder / "job.sh"
    script.write_text(_JOB.format(folder=folder, work=work))
    job_id = slurm.submit(*arguments, str(script))
    return job_id, folder / f"{job_id}.out"


def test_a_job_runs_one_task_on_each_node_and_sacct_tells_its_end(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    job_id, output = _submit(slurm, tmp_path, "true")
    slurm.wait_for(job_id, {"COMPLETED"})
    assert sorted(output.read_text().splitlines()) == [
        "0: restart 0 of task 0 on n1",
        "1: restart 0 of task 1 on n2",
    ]
    assert slurm.wait_for_accounting(job_id, {"COMPLETED"}) == "COMPLETED"


# The launcher's jobs go through all of it in the default run; this tells whose fault it is.
@pytest.mark.slow
def test_a_signalled_job_is_requeued_and_outlives_a_dead_node(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    job_id, output = _submit(slurm, tmp_path, _UNTIL_ENDED)
    slurm.wait_for_text(output, "USR2 of 0", "USR2 of 1")

    slurm.run("scontrol", "requeue", str(job_id))
    slurm.start_now(job_id)
    slurm.wait_for_text(output, "restart 1 of task 0 on n1", "restart 1 of task 1 on n2")

    slurm.kill_node("n2")
    slurm.wait_for(job_id, {"PENDING"})
    assert slurm.node_state("n2").startswith("down")
    assert slurm.job(job_id)["Restarts"] == "2"
    slurm.revive_node("n2")
    slurm.start_now(job_id)
    slurm.wait_for_text(output, "restart 2 of task 0 on n1", "restart 2 of task 1 on n2")

    slurm.run("scancel", str(job_id))
    slurm.wait_for(job_id, {"CANCELLED"})
    assert slurm.wait_for_accounting(job_id, {"CANCELLED"}) == "CANCELLED"


@pytest.mark.skipif(os.getuid() != 0, reason="only root submits jobs of another user")
def test_two_users_jobs_run_side_by_side(slurm: SlurmCluster) -> None:
    # Not in tmp_path: pytest's folders are open to one user only.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        meeting = "date > {folder}/$(id -un); until [ -e {folder}/{other} ]; do sleep 0.1; done"
        mine, _ = _submit(slurm, folder, meeting.format(folder=folder, other="nobody"))
        theirs, _ = _submit(
            slurm, folder, meeting.format(folder=folder, other="root"), "--uid=nobody"
        )
        for job_id in (mine, theirs):
            slurm.wait_for(job_id, {"COMPLETED"})
        assert (folder / "nobody").owner() == "nobody"
        assert (folder / "root").owner() == "root"
