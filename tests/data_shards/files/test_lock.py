import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.files import lock
from data_shards.files.lock import locked

COUNT_UP = """
import sys
from pathlib import Path
from data_shards.files.lock import locked

folder = Path(sys.argv[1])
for _ in range(200):
    with locked(folder / "lock", busy="waiting", wait=True):
        count = int((folder / "count").read_text())
        (folder / "count").write_text(str(count + 1))
"""


SHARE = """
import sys
from pathlib import Path
from data_shards.files.lock import locked

for _ in range(1000):
    with locked(Path(sys.argv[1]) / "lock", shared=True, busy="busy"):
        pass
"""


def test_processes_that_wait_for_a_lock_hold_it_one_at_a_time(tmp_path: Path) -> None:
    # Every release removes the file that others may have opened already.
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", COUNT_UP, str(tmp_path)]
    running = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    assert (tmp_path / "count").read_text() == "800"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_a_shared_lock_excludes_only_those_that_are_not(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with locked(path, shared=True, busy="busy"):
        with locked(path, shared=True, busy="busy"):
            pass
        with pytest.raises(InputError, match="busy"), locked(path, busy="busy"):
            pass
        assert path.exists()
    assert not path.exists()
    with (
        locked(path, busy="busy"),
        pytest.raises(InputError, match="busy"),
        locked(path, shared=True, busy="busy"),
    ):
        pass
    assert not path.exists()


def test_those_who_share_a_lock_never_find_it_taken(tmp_path: Path) -> None:
    # Each release takes it alone for an instant, to remove the file.
    command = [sys.executable, "-c", SHARE, str(tmp_path)]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_killed_holder_locks_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with locked(path, busy="busy"):
        pass
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks_is_said_once(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def without_locks(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    monkeypatch.setattr(lock, "_WITHOUT_LOCKS", set())
    for name in ("a", "b"):
        with locked(tmp_path / name / "lock", busy="busy"):
            pass
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"warning: {tmp_path / 'a'}: its file system keeps no locks")


def test_where_there_are_locks_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        locked(tmp_path / "lock", busy="busy"),
        pytest.raises(InputError, match="busy"),
        locked(tmp_path / "lock", busy="busy"),
    ):
        pass
    assert capsys.readouterr().err == ""


def test_a_lock_holds_when_its_file_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, busy="busy") as lock:
        path.unlink()
        lock.check()  # nobody else has it
        with pytest.raises(InputError, match="busy"), locked(path, busy="busy"):
            pass
    with locked(path, busy="busy"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_says_that_its_folder_is_gone_or_that_another_has_its_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    with locked(path, busy="busy") as lock:
        path.unlink()
        path.write_text("process 1 on another machine, without locks of folders")
        with pytest.raises(InputError, match="another process holds the folder"):
            lock.check()
        path.unlink()
        path.parent.rename(tmp_path / "elsewhere")
        with pytest.raises(InputError, match=r"folder: moved or deleted while it was in use"):
            lock.check()
    assert [each.name for each in tmp_path.iterdir()] == ["elsewhere"]


def test_a_lock_never_writes_where_a_link_leads(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"), locked(tmp_path / "lock", busy="busy"):
        pass
    assert precious.read_text() == "mine"


def test_where_no_folder_can_ever_be_made_is_an_error_and_no_endless_try() -> None:
    with pytest.raises(FileNotFoundError), locked(Path("/proc/nowhere/lock"), busy="busy"):
        pass
