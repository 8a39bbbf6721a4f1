from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from data_shards.errors import InputError
from launch.records import JobFolder, jobs_of, new_job_folder, newest_job
from tests.launch.jobs import submitted


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_job_folders_are_for_the_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        job = new_job_folder(tmp_path / "run", "pretrain")
    finally:
        os.umask(before)
    assert (mode(job.path), mode(job.path.parent)) == (0o700, 0o700)
    assert job.results == tmp_path / "run"


def test_a_folder_open_to_others_is_closed_first(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs").chmod(0o777)
    new_job_folder(tmp_path, "pretrain")
    assert mode(tmp_path / "jobs") == 0o700


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(InputError, match="belongs to another user"):
        new_job_folder(tmp_path, "pretrain")
    assert list((tmp_path / "jobs").iterdir()) == []


def test_jobs_are_numbered_and_sorted_by_number(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    for name in ("002-evaluate", "1000-pretrain", "999-build", "notes", "12-x"):
        (jobs / name).mkdir(parents=True)
    assert new_job_folder(tmp_path, "pretrain").path.name == "1001-pretrain"
    assert [job.path.name for job in jobs_of(tmp_path)] == [
        *("002-evaluate", "999-build", "1000-pretrain", "1001-pretrain")
    ]


def test_the_newest_job_is_the_last_that_the_scheduler_took(tmp_path: Path) -> None:
    assert newest_job(tmp_path) is None
    taken = submitted(tmp_path)
    new_job_folder(tmp_path, "pretrain")
    newest = newest_job(tmp_path)
    assert newest is not None
    assert newest.path == taken.path


def test_a_record_reads_back_equal(tmp_path: Path) -> None:
    job = submitted(tmp_path, job_id="12_3", ranks=4)
    assert job.record().job_id == "12_3"
    assert JobFolder(job.path).record() == job.record()


@pytest.mark.parametrize("text", ["", "{}", '{"job_id": "12"}', "not JSON"])
def test_a_malformed_record_is_one_clear_line(tmp_path: Path, text: str) -> None:
    job = submitted(tmp_path)
    job.record_file.write_text(text)
    with pytest.raises(InputError, match=r"record.json: not a job's record .*: delete") as caught:
        job.record()
    assert "\n" not in str(caught.value)


def test_a_malformed_event_is_one_clear_line(tmp_path: Path) -> None:
    job = submitted(tmp_path)
    (job.path / "events-rank0.jsonl").write_text('{"event": "exploded"}\n')
    with pytest.raises(InputError, match=r"events.jsonl: not a job's events .*: delete"):
        job.events()


def test_an_event_still_being_written_is_not_read(tmp_path: Path) -> None:
    job = submitted(tmp_path)
    job.add("started", step=4)
    with (job.path / "events-rank0.jsonl").open("a") as file:
        file.write('{"event": "fini')
    [event] = job.events()
    assert (event.event, event.step, event.rank) == ("started", 4, 0)


def test_ranks_write_events_side_by_side(tmp_path: Path) -> None:
    job = submitted(tmp_path)
    long = "x" * 100_000

    def fail(rank: int) -> None:
        for _ in range(50):
            job.add("failed", rank=rank, line=long)

    ranks = [threading.Thread(target=fail, args=(rank,)) for rank in range(4)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join()
    assert len(job.events()) == 200
