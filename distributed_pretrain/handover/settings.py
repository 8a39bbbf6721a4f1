"""What `export` and `serve` can be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt

from data_shards.profiles import Config
from data_shards.records.study import Split
from data_shards.remote.shards import Shards
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.step_folders import BEST

# Each a file in `handover/formats/`, with `write`.
FORMATS = ("torchvision", "timm", "transformers", "onnx")


class ExportConfig(Config):
    """Which weights go where.

    `checkpoint` is best, last, a step folder's name, or untrained. `output` is a folder; null: one
    in the run's, by format. `push_to_hub` is a repository of the Hugging Face hub (OWNER/NAME) that
    the folder is sent to, private unless it is there already.
    """

    checkpoint: str = BEST
    output: Path | None = None
    push_to_hub: str | None = None

    def folder(self, run: RunFolder, to: str) -> Path:
        """Where the export goes. Raises InputError for a checkpoint of no such name."""
        return self.output or run.path / "exports" / f"{to}_{run.checkpoint_name(self.checkpoint)}"


class ServeConfig(Config):
    """Which weights answer, among which reports, and who may ask.

    `checkpoint` is best, last, a step folder's name, or untrained. The reports are those of at most
    `most_reports` studies of a `split` of `shards`; null: the run's own. Only this machine reaches
    the page at `host` 127.0.0.1, and at another address whoever reaches that; port 0 is any that is
    free.
    """

    checkpoint: str = BEST
    shards: Shards | None = None
    split: Split = "test"
    most_reports: PositiveInt = 1000
    host: str = "127.0.0.1"
    port: int = Field(default=7860, ge=0, le=65535)


def refuse_what_cannot_start(config: ExportConfig | ServeConfig, folder: Path, ranks: int) -> None:
    """Raise InputError for a folder without run or checkpoint."""
    del ranks
    RunFolder(folder).refuse_missing(checkpoint=config.checkpoint)
