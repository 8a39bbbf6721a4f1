"""What `evaluate RUN_FOLDER key=value ...` can be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt

from data_shards.profiles import Config
from data_shards.records.study import Split
from distributed_pretrain.measures.metric import read_figures
from distributed_pretrain.run_folder.folder import RunFolder


class EvaluateConfig(Config):
    """Which weights are judged, on what, and with how many labels."""

    checkpoint: str = Field("best", description="best, last, a step folder's name, or untrained")
    split: Split = "test"
    shards: Path | None = Field(None, description="null: those the run was trained on")
    labelled_studies: PositiveInt = Field(
        600, description="training studies whose labels and masks a linear head may use"
    )
    labelled_subsets: PositiveInt = Field(
        1, description="how many such sets, without a study in common, the figures are means over"
    )
    labels: tuple[str, ...] = Field(
        (), description="those that a linear head is to tell; none: all that the shards have"
    )

    def results(self, run: RunFolder) -> Path:
        """Where the figures go."""
        return run.evaluation(self.split, self.checkpoint)


def refuse_missing_run(_: EvaluateConfig, folder: Path, ranks: int) -> None:
    """Raise InputError for what would end a start in its first minute."""
    del ranks
    RunFolder(folder).refuse_missing()


def figures_of_evaluation(config: EvaluateConfig, folder: Path) -> dict[str, float]:
    """What was measured; empty before."""
    return read_figures(config.results(RunFolder(folder)))
