"""What a rank computes for the proof of the heads' equal gradients, in its own process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from distributed_pretrain import ranks as collectives
from distributed_pretrain.batch import join_rows
from distributed_pretrain.downstream.protocols.base import ProtocolConfig
from distributed_pretrain.downstream.protocols.linear_segmentation import LinearSegmentationConfig
from distributed_pretrain.downstream.protocols.unet import UNetConfig
from distributed_pretrain.downstream.protocols.yolov3 import YoloConfig
from distributed_pretrain.measures.base import Context, make_measures
from distributed_pretrain.measures.catalog import DOWNSTREAM
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from tests.distributed_pretrain.downstream.phantom_heads import CLASSES, built, drawn_batch
from tests.tiny.batches import as_double

GLOBAL_BATCH, STEPS = 8, 3
# Trained ones warm up for a step.
HEADS: dict[str, ProtocolConfig] = {
    "linear": LinearSegmentationConfig(),
    "unet": UNetConfig(encoder="finetune", warmup_steps=1),
    "yolov3": YoloConfig(encoder="finetune", warmup_steps=1, min_confidence=0.5),
}


def run_heads(folder: Path) -> None:
    """Save the results of rank 0 to `folder/results.pt`."""
    results = {name: run_head(name) for name in HEADS}
    if collectives.world_size() == 1 or torch.distributed.get_rank() == 0:
        torch.save(results, folder / "results.pt")
    collectives.wait_for_all()


def run_head(name: str) -> dict[str, Tensor]:
    """Loss terms of every step, then figures, weights and statistics after the last."""
    engine = Engine(TrainingConfig())
    objective = built(HEADS[name], seed=1).double().train()
    # Steps so small that rounding decides no sign of Adam's.
    optimizer = OptimizerConfig(learning_rate=1e-4, epsilon=1e-3)
    engine.prepare(objective, build_optimizer(optimizer, objective))
    results: dict[str, Tensor] = {}
    share = GLOBAL_BATCH // engine.world_size
    for step in range(STEPS):
        whole = as_double(drawn_batch(GLOBAL_BATCH, seed=step))
        own = whole.rows(slice(engine.rank * share, (engine.rank + 1) * share))
        engine.objective.start_step(epoch=0, step=step)
        found = accumulate_gradients(
            engine, [join_rows([own])], exact=True, seed=step, measure_norms=False
        )
        engine.objective.after_backward()
        norm = engine.gradient_norm()
        for term, value in found.terms.items():
            results[f"{term} {step}"] = collectives.mean_over_ranks(value)
        engine.update(1e-4, clip_norm=None, norm=norm)
    results |= figures_of(engine)
    return results | {n: t.detach().clone() for n, t in engine.model_state().items()}


@torch.no_grad()
def figures_of(engine: Engine) -> dict[str, Tensor]:
    """What the measures make of two batches, of which each rank has its rows."""
    objective = engine.objective.eval()
    names = tuple(f"finding {number}" for number in range(CLASSES))
    context = Context(objective=objective, device=engine.device, masks=names, boxes=names)
    measures = make_measures(DOWNSTREAM, context)
    share = GLOBAL_BATCH // engine.world_size
    for seed in (11, 12):
        whole = as_double(drawn_batch(GLOBAL_BATCH, seed=seed))
        # The last one only fills up.
        mask = torch.arange(GLOBAL_BATCH) < GLOBAL_BATCH - (seed == 12)
        whole = replace(whole, sample_mask=mask)
        own = whole.rows(slice(engine.rank * share, (engine.rank + 1) * share))
        outputs = objective(own)
        for measure in measures:
            measure.update(own, outputs)
    found = {k: v for measure in measures for k, v in measure.compute().items()}
    return {f"figure {name}": torch.tensor(value) for name, value in found.items()}
