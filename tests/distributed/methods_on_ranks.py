"""What a rank computes for the proof of every method's equal gradients, in its own process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from distributed_pretrain import ranks as collectives
from distributed_pretrain.batch import join_rows
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from tests.tiny.batches import as_double, random_batch, with_host_facts
from tests.tiny.methods import tiny_method, tiny_profile

GLOBAL_BATCH = 12
STEPS = 3


@dataclass(frozen=True)
class MethodCase:
    """A profile's method, its norms, and the micro-batches that its gradient comes from.

    With `plain_groups` samples are compared, and normalised, in three parts, one after another or,
    by `groups_at_once`, in one forward. With `packed` text encoders read reports packed,
    and the host knows what is real.
    With `laterals_of_one_rank` studies of the first of two ranks alone have laterals.
    """

    profile: str
    norm: Norm
    micro_batches: int = 1
    plain_groups: bool = False
    groups_at_once: int = 1
    packed: bool = False
    laterals_of_one_rank: bool = False


Result = dict[str, dict[str, Tensor]]


def run_method_cases(cases: list[MethodCase], folder: Path) -> None:
    """Save the results of rank 0 to `folder/results.pt`."""
    results = {case: run_method_case(case) for case in cases}
    if collectives.world_size() == 1 or torch.distributed.get_rank() == 0:
        torch.save(results, folder / "results.pt")
    collectives.wait_for_all()


def run_method_case(case: MethodCase) -> Result:
    """Loss terms and gradients of the first two epochs' steps, weights after three steps.

    The second step's epoch is the second: what is frozen in the first moves then.
    """
    config = tiny_profile(case.profile, norm=case.norm, across_ranks=True)
    engine = Engine(TrainingConfig(accumulation_steps=case.micro_batches))
    method = tiny_method(config).double().to(engine.device).train()
    # Steps so small that rounding decides no sign of Adam's.
    optimizer = OptimizerConfig(learning_rate=1e-4, epsilon=1e-3)
    engine.prepare(method, build_optimizer(optimizer, method))
    results: Result = {}
    for step in range(STEPS):
        parts = case.micro_batches * case.groups_at_once if case.plain_groups else 1
        share = GLOBAL_BATCH // engine.world_size // parts
        starts = [(part * engine.world_size + engine.rank) * share for part in range(parts)]
        whole = as_double(random_batch(config, GLOBAL_BATCH, seed=step)).to(engine.device)
        if case.laterals_of_one_rank and whole.lateral is not None:
            first = torch.arange(GLOBAL_BATCH, device=engine.device) < GLOBAL_BATCH // 2
            whole = replace(whole, lateral=replace(whole.lateral, mask=first))
        if case.packed:
            whole = with_host_facts(whole)
        batch = join_rows([whole.rows(slice(start, start + share)) for start in starts])
        engine.objective.start_step(epoch=step)
        found = accumulate_gradients(
            engine,
            batch.split([1] * case.micro_batches, pack=case.packed),
            exact=not case.plain_groups,
            seed=step,
            measure_norms=False,
            groups=[case.groups_at_once] * case.micro_batches,
        )
        norm = engine.gradient_norm()
        if step < 2:
            results[f"losses {step}"] = {
                name: collectives.mean_over_ranks(term).cpu() for name, term in found.terms.items()
            }
            results[f"gradients {step}"] = {
                name: parameter.grad.clone().cpu()
                for name, parameter in engine.objective.named_parameters()
                if parameter.grad is not None
            }
        engine.update(1e-4, clip_norm=None, norm=norm)
        engine.objective.after_update(progress=step / STEPS)
    results["weights"] = {n: t.detach().clone().cpu() for n, t in engine.model_state().items()}
    return results
