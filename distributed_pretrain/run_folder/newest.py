"""Which checkpoint a run goes on from: the newest that is whole, its own, and fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data_shards.errors import warn
from data_shards.files.atomic import move
from distributed_pretrain.run_folder.checkpoint import Checkpoint, load_checkpoint
from distributed_pretrain.run_folder.intact import DamagedCheckpointError, Owner
from distributed_pretrain.run_folder.step_folders import LAST, point_link, step_folders, step_of


class NewestCheckpoint:
    """The newest checkpoint (of at most `until_step`) that is whole and `owner`'s, in memory.

    `folder` and `checkpoint` are None where there is none; `damaged` says what is wrong with the
    newer ones. Each file is read once.
    """

    def __init__(
        self, checkpoints: Path, owner: Owner | None = None, *, until_step: int | None = None
    ) -> None:
        self.damaged: dict[Path, str] = {}
        self._checkpoints = checkpoints
        self._owner = owner
        self._left = [
            each
            for each in step_folders(checkpoints)
            if until_step is None or step_of(each) <= until_step
        ]
        self.folder: Path | None = None
        self.checkpoint: Checkpoint | None = None
        self._take_the_one_before()

    def hold_against(self, complaint_about: Callable[[Checkpoint], str | None]) -> None:
        """Take the one before, and so on, where there is a complaint."""
        while self.folder is not None and self.checkpoint is not None:
            complaint = complaint_about(self.checkpoint)
            if complaint is None:
                return
            self.damaged[self.folder] = str(
                DamagedCheckpointError(self.folder, f"{complaint}: not used")
            )
            self._take_the_one_before()

    def set_damaged_aside(self) -> None:
        """Rename the damaged ones, naming each on stderr, and point `last` at this one.

        That is said, too, where `last` names one that is gone.
        """
        last = self._checkpoints / LAST
        instead = self.folder.name if self.folder else "the beginning"
        if last.is_symlink() and not last.exists():
            warn(f"checkpoint {last.readlink().name} is gone; going on from {instead}")
            if self.folder is not None:
                point_link(last, self.folder)
        for each, complaint in self.damaged.items():
            warn(f"{complaint}; going on from {instead}")
            move(each, each.with_suffix(".damaged"))
            if self.folder is not None:
                point_link(last, self.folder)

    def _take_the_one_before(self) -> None:
        self.folder = self.checkpoint = None
        while self._left:
            folder = self._left.pop()
            try:
                self.checkpoint = load_checkpoint(folder, self._owner)
            except DamagedCheckpointError as error:
                self.damaged[folder] = str(error)
            else:
                self.folder = folder
                return
