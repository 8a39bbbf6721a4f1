"""What `evaluate RUN_FOLDER key=value ...` can be told."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from pydantic import PositiveInt

from data_shards.errors import InputError
from data_shards.profiles import Config, load_profile
from data_shards.records.manifest import MANIFEST_NAME, read_manifest
from data_shards.records.study import Split
from data_shards.remote.address import Address
from data_shards.remote.shards import Shards
from distributed_pretrain.measures.metric import read_figures
from distributed_pretrain.measures.prompts import ClassPrompts, PromptsConfig
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.step_folders import BEST


class EvaluateConfig(Config):
    """Which weights are judged, on what, and with how many labels.

    `checkpoint` is best, last, a step folder's name, or untrained; `shards` null are those the run
    was trained on, and others a folder or an address, as in `data`. A linear head may use labels
    and masks of `labelled_studies` training studies; figures are means over `labelled_subsets` such
    sets without a study in common. `labels` are those that it is to tell; none: all that the shards
    have. `prompts` is a YAML file, as those of configs/prompts, of sentences that tell each class
    without labels. `output` is the JSON file of the figures; null: in the run's folder, by split
    and checkpoint, and by the shards where those are others than the run learnt from. `pictures`,
    of what the encoder sees, are written beside it as PNG, on an HTML page, and for TensorBoard.
    """

    checkpoint: str = BEST
    split: Split = "test"
    shards: Shards | None = None
    labelled_studies: PositiveInt = 600
    labelled_subsets: PositiveInt = 1
    labels: tuple[str, ...] = ()
    prompts: Path | None = None
    output: Path | None = None
    pictures: bool = False

    def read_prompts(self) -> dict[str, ClassPrompts]:
        """The prompts of each class. Raises InputError for a file that cannot be read."""
        return load_profile(PromptsConfig, self.prompts).classes if self.prompts else {}

    def results(self, run: RunFolder) -> Path:
        """Where the figures go. Raises InputError for a checkpoint of no such name."""
        name = run.checkpoint_name(self.checkpoint)
        return self.output or run.evaluation(self.split, f"{name}{self._other_shards(run)}")

    def _other_shards(self, run: RunFolder) -> str:
        """A word that tells these shards from the run's own, which may have been moved."""
        if self.shards is None:
            return ""
        manifest = _manifest_folder(self.shards, run) / MANIFEST_NAME
        digest = sha256(manifest.read_bytes()).hexdigest() if manifest.exists() else ""
        if digest == run.learnt_from():
            return ""
        named = self.shards if isinstance(self.shards, Address) else self.shards.resolve()
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(named).name)
        return f"_on_{name}_{digest[:8]}"


def refuse_what_cannot_start(config: EvaluateConfig, folder: Path, ranks: int) -> None:
    """Raise InputError for what would end a start in its first minute."""
    run = RunFolder(folder)
    run.refuse_missing(checkpoint=config.checkpoint)
    config.read_prompts()
    if ranks > 1:
        refuse_ranks(run.read_config(PretrainConfig).data.global_batch, ranks)
    if config.shards:
        read_manifest(_manifest_folder(config.shards, run))


def _manifest_folder(shards: Shards, run: RunFolder) -> Path:
    """Where the manifest of `shards` lies; of a store in the cache that the run's profile names."""
    if not isinstance(shards, Address):
        return shards
    return run.read_config(PretrainConfig).data.files(shards).manifest_folder()


def refuse_ranks(global_batch: int, ranks: int) -> None:
    """Raise InputError where `ranks` cannot share the batches that the run's figures are of."""
    if global_batch % ranks:
        fit = [str(n) for n in range(1, ranks) if global_batch % n == 0]
        raise InputError(
            f"evaluate: {ranks} ranks cannot share the run's batches of {global_batch} "
            f"(data.global_batch): use {', '.join(fit[:-1])}{' or ' * bool(fit[:-1])}{fit[-1]}"
        )


def figures_of_evaluation(config: EvaluateConfig, folder: Path) -> dict[str, float]:
    """What was measured; empty before."""
    return read_figures(config.results(RunFolder(folder)))
