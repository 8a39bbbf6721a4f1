"""The project's commands that a cluster can run, read and checked before anything is queued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from data_shards.profiles import Config, dump_profile, load_profile, parse_overrides, validate
from data_shards.records.manifest import read_manifest
from distributed_pretrain.experiments.settings import ComparisonConfig
from distributed_pretrain.pretrain.settings import EvaluateConfig, PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder

KNOWN = (
    "pretrain PROFILE.yaml, evaluate RUN_FOLDER, report PROFILE.yaml, "
    "data_shards build PROFILE.yaml or data_shards verify PROFILE.yaml"
)


@dataclass(frozen=True)
class Command:
    """One command of the project, as `python -m` takes it, and the config that its words make.

    `subject` is a profile or a run folder; `folder` is where the results go.
    """

    module: str
    verb: str
    subject: Path
    overrides: tuple[str, ...]
    config: Config
    folder: Path

    @property
    def words(self) -> tuple[str, ...]:
        """As somebody types it after `python -m`."""
        return (self.module, self.verb, str(self.subject), *self.overrides)

    @property
    def resolved_profile(self) -> str | None:
        """The profile with its parents and overrides; None where the words say all."""
        keeps = isinstance(self.config, PretrainConfig | ShardsConfig)
        return dump_profile(self.config) if keeps else None

    def words_with(self, profile: Path) -> tuple[str, ...]:
        """The same command of `profile`, a file that holds `resolved_profile`."""
        return (self.module, self.verb, str(profile))

    def check(self, *, ranks: int) -> None:
        """Raise InputError for what would end the job in its first minute."""
        if isinstance(self.config, PretrainConfig):
            self.config.check_ranks(ranks)
            RunFolder(self.folder).refuse_other(self.config)
            read_manifest(self.config.data.shards)
        elif ranks > 1:
            raise InputError(
                f"{self.verb} runs in one process, but the cluster profile asks for {ranks}: pass "
                "nodes=1 ranks_per_node=null gpus_per_node=1 (0 without a GPU) before the --"
            )


def read_command(words: Sequence[str], *, frozen: Path | None = None) -> Command:
    """The command that `words` say; as it was submitted, where `frozen` holds its profile.

    Raises InputError for bad input, and a command that no cluster runs.
    """
    module, rest = "distributed_pretrain", list(words)
    if rest[:1] in (["distributed_pretrain"], ["data_shards"]):
        module = rest.pop(0)
    if len(rest) < 2:
        raise InputError(f"{' '.join(words) or 'no command'}: write {KNOWN} after the --")
    verb, subject, overrides = rest[0], Path(rest[1]), tuple(rest[2:])
    if frozen is not None and frozen.exists():
        subject, overrides = frozen, ()
    elif verb == "evaluate":
        # Its figures are asked for from other folders later.
        subject = subject.absolute()
    config, folder = _read_config(module, verb, subject, overrides)
    return Command(module, verb, subject, overrides, config, folder.absolute())


def _read_config(
    module: str, verb: str, subject: Path, overrides: tuple[str, ...]
) -> tuple[Config, Path]:
    match module, verb:
        case "distributed_pretrain", "pretrain":
            pretrain = load_profile(PretrainConfig, subject, overrides)
            return pretrain, pretrain.run_folder
        case "distributed_pretrain", "evaluate":
            if not (subject / "config.yaml").is_file():
                raise InputError(f"{subject}: no run folder (it has no config.yaml)")
            values = parse_overrides(overrides)
            return validate(EvaluateConfig, values, where="evaluate"), subject
        case "distributed_pretrain", "report":
            # Dotted ones are those of the runs, which `report` itself reads.
            own = [each for each in overrides if "." not in each.partition("=")[0]]
            report = load_profile(ComparisonConfig, subject, own)
            return report, report.output
        case "data_shards", "build" | "verify":
            shards = load_profile(ShardsConfig, subject, overrides)
            return shards, shards.output
        case _:
            raise InputError(f"{module} {verb}: not a command for a cluster: write {KNOWN}")
