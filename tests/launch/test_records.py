from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from data_shards.errors import InputError
from launch.records import (
    Event,
    EventName,
    JobFolder,
    jobs_of,
    new_job_folder,
    newest_job,
    since_start,
    told_starts,
)
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


@pytest.mark.parametrize(
    "text", ["", "{}", '{"job_id": "12"}', "not JSON", "[]", "[" * 100_000, "\x00" * 300]
)
def test_a_malformed_record_is_one_clear_line(tmp_path: Path, text: str) -> None:
    job = submitted(tmp_path)
    job.record_file.write_text(text)
    with pytest.raises(InputError, match=r"record.json: not a job's record .*: delete") as caught:
        job.record()
    assert "\n" not in str(caught.value)


def test_a_record_that_is_no_file_is_one_clear_line(tmp_path: Path) -> None:
    for make in (Path.mkdir, lambda path: os.mkfifo(path)):
        job = submitted(tmp_path)
        job.record_file.unlink()
        make(job.record_file)
        with pytest.raises(InputError, match=r"record.json: not a file: .*: delete"):
            job.record()


def test_a_malformed_event_is_one_clear_line(tmp_path: Path) -> None:
    job = submitted(tmp_path)
    (job.path / "events-rank0.jsonl").write_text('{"event": "exploded"}\n')
    with pytest.raises(InputError, match=r"events.jsonl: not a job's events .*: delete"):
        job.events()


def event(name: EventName, host: str, second: int, *, restart: int = 0, rank: int = 0) -> Event:
    time = f"2026-01-01T00:00:{second:02}"
    return Event(event=name, time=time, host=host, restart=restart, rank=rank)


def kept(folder: Path, *events: Event) -> list[Event]:
    """As a job reads them back."""
    job = submitted(folder)
    for each in events:
        job.event_lines.append(each.model_dump(), writer=f"rank{each.rank}")
    return job.events()


def test_a_failure_counts_though_its_hosts_clock_is_behind(tmp_path: Path) -> None:
    events = kept(tmp_path, event("started", "n1", 30), event("failed", "n2", 10, rank=1))
    assert [each.event for each in since_start(events)] == ["failed", "started"]


def test_a_failure_of_an_earlier_start_does_not_count_though_its_clock_is_ahead(
    tmp_path: Path,
) -> None:
    events = kept(
        tmp_path,
        event("started", "n1", 10),
        event("failed", "n2", 50, rank=1),
        event("started", "n1", 30, restart=1),
    )
    assert [each.event for each in since_start(events)] == ["started"]
    assert [each.event for each in events] == ["started", "failed", "started"]


def test_starts_that_slurm_cut_short_are_not_those_that_were_told_to_end(tmp_path: Path) -> None:
    starts = [event("started", "n1", n, restart=n) for n in range(4)]
    requeued = [event("requeued", "n1", n, restart=n) for n in (0, 2)]
    assert told_starts(kept(tmp_path, *starts, *requeued)) == [starts[0], starts[2], starts[3]]
    assert told_starts([]) == []


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
