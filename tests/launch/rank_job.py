"""A job whose ranks run modules that are written for the purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from launch.rank import Place, RankTask
from launch.records import Event, JobFolder, new_job_folder


class RankJob:
    """A job folder whose ranks run the text of a module."""

    def __init__(self, folder: Path) -> None:
        self.modules = folder / "modules"
        self.modules.mkdir()
        self.folder: JobFolder = new_job_folder(folder / "run", "pretrain")
        self.log = folder / "log.out"
        self.log.touch()

    def run(
        self,
        module: str,
        *,
        rank: int = 0,
        requeues: int = 5,
        words: tuple[str, ...] = ("a.yaml",),
        goes_on_by: Literal["steps", "tasks", "nothing"] = "steps",
        restart: int = 0,
        granted: frozenset[int] | None = None,
    ) -> bool:
        (self.modules / "tiny_command.py").write_text(module)
        task = RankTask(
            job=self.folder.path,
            words=("tiny_command", "pretrain", *words),
            goes_on_by=goes_on_by,
            requeues=requeues,
            threads=3,
            master_port=None,
        )
        # Of one rank each, as far as the others are concerned: nobody waits for another.
        place = Place("12", rank, 1, 0, 1, restart, self.log, granted)
        return task.run(place)

    def save_step(self, step: int) -> None:
        checkpoint = self.folder.results / "checkpoints" / f"step_{step:08}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "COMPLETE").touch()

    @property
    def events(self) -> list[Event]:
        return self.folder.events()

    @property
    def said(self) -> list[str]:
        return [each.event for each in self.events]
