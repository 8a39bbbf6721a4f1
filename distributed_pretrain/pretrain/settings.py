"""The whole of a pre-training run as one typed config."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import PositiveInt, TypeAdapter, ValidationError, model_validator

from data_shards.records.manifest import read_manifest
from distributed_pretrain.methods.catalog import AnyMethodConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.settings import RunConfig

_METHOD: TypeAdapter[AnyMethodConfig] = TypeAdapter(AnyMethodConfig)
# Of methods, in the configs of earlier runs.
_FORMER_NAMES = {"initial": "untrained"}


class PretrainConfig(RunConfig):
    """One pre-training run; saved in its run folder and in every checkpoint.

    `vocabulary_size` is that of the tokenizer trained for a new report encoder. What `data` leaves
    open of what a method reads (its views, say) is what the method asks for.
    """

    vocabulary_size: PositiveInt = 2048
    method: AnyMethodConfig

    @model_validator(mode="before")
    @classmethod
    def _fill_what_is_read(cls, values: Any) -> Any:
        data = values.get("data") if isinstance(values, dict) else None
        if not isinstance(data, dict):
            return values
        method = values.get("method")
        if isinstance(method, dict) and method.get("name") in _FORMER_NAMES:
            values = {**values, "method": {**method, "name": _FORMER_NAMES[method["name"]]}}
        try:
            reads = _METHOD.validate_python(values.get("method")).reads
        except ValidationError:
            return values  # and the field itself says what is wrong
        return {**values, "data": reads.fill(data)}

    @model_validator(mode="after")
    def _views_are_those_of_the_method(self) -> Self:
        wanted = self.method.reads.views
        if self.data.views != wanted:
            raise ValueError(
                f"data.views={self.data.views}: method.name={self.method.name} as configured "
                f"learns from {wanted}: set data.views={wanted}, or leave it out"
            )
        return self


def refuse_what_cannot_start(config: RunConfig, folder: Path, ranks: int) -> None:
    """Raise InputError for what would end a start in its first minute."""
    config.check_ranks(ranks)
    RunFolder(folder).refuse_other(config)
    read_manifest(config.data.files().manifest_folder())


def figures_of_run(_: PretrainConfig, folder: Path) -> dict[str, float]:
    """What validation measured at the best checkpoint."""
    return RunFolder(folder).best_validation()
