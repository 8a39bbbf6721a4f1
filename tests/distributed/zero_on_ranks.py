"""What a rank of DeepSpeed does for test_deepspeed: runs in processes of its own."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.lovt.method import Lovt
from distributed_pretrain.training.engine.ddp import build_optimizer
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from tests.distributed.deepspeed_on_cpu import allow_cpu_ranks
from tests.tiny.batches import pairs_of_sentences
from tests.tiny.methods import tiny_lovt
from tests.tiny.sizes import IMAGE_ENCODER

SENTENCES = (3, 1, 2, 3, 1, 2, 1, 3)
LEARNING_RATE = 1e-3
CLIP_NORM = 0.5
# Far above rounding errors: Adam would make whole steps of the noise in gradients that are zero
# but for rounding (those of biases before a norm).
OPTIMIZER = OptimizerConfig(weight_decay=0.01, epsilon=1e-4)
NORMS_BY_SAMPLE: dict[str, Any] = {
    "image_encoder": IMAGE_ENCODER | {"norm": "group"},
    "projection_norm": "group",
}


def method_and_optimizer() -> tuple[Lovt, torch.optim.Optimizer]:
    """All losses; temperatures of shape (1,) are learnt, the word embeddings are frozen."""
    method = tiny_lovt(learnable_temperatures=True, pair_weight=1.0, **NORMS_BY_SAMPLE).train()
    for name, parameter in method.named_parameters():
        parameter.requires_grad_("word_embeddings" not in name)
    return method, build_optimizer(OPTIMIZER, method)


def global_batch(number: int) -> Batch:
    """Eight pairs; other images for each number."""
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(len(SENTENCES), 1, 96, 96, generator=generator)
    return replace(pairs_of_sentences(*SENTENCES), images=images)


class OneProcess:
    """The same training in plain torch."""

    def __init__(self) -> None:
        self.method, self.optimizer = method_and_optimizer()
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE
        self.gradients: dict[str, Tensor] = {}
        self.norm = torch.tensor(0.0)

    def step(self, number: int) -> None:
        self.optimizer.zero_grad()
        self.method.loss(self.method(global_batch(number)))["total"].backward()
        named = self.method.named_parameters()
        self.gradients = {n: p.grad.clone() for n, p in named if p.grad is not None}
        self.norm = torch.nn.utils.clip_grad_norm_(self.method.parameters(), CLIP_NORM)
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        return copy.deepcopy(
            {"model": self.method.state_dict(), "optimizer": self.optimizer.state_dict()}
        )


def run_stages(stages: list[int], folder: Path) -> None:
    """From `folder/begun.pt`, save {stage: what was seen} of each rank to `folder/seen<r>.pt`."""
    allow_cpu_ranks()
    begun = torch.load(folder / "begun.pt", weights_only=True)
    seen = {stage: run_stage(stage, begun) for stage in stages}
    rank = seen[stages[0]]["rank"]
    torch.save(seen, folder / f"seen{rank}.pt")


def run_stage(stage: int, begun: dict[str, Any]) -> dict[str, Any]:
    """Go on from `begun` with steps 2 and 3, with dropped ones between them and without."""
    from deepspeed.utils import safe_get_full_grad

    rank = Rank(stage)
    engine = rank.engine
    seen: dict[str, Any] = {
        "rank": engine.rank,
        "drew": rank.drew,
        "fresh": copy.deepcopy(engine.optimizer_state()),
    }
    engine.load_state(begun["model"], copy.deepcopy(begun["optimizer"]))
    seen["loaded"] = rank.state()

    rank.accumulate(2, measure_norms=stage < 3)
    seen["norm"] = engine.gradient_norm()
    named = [(n, p) for n, p in engine.objective.named_parameters() if p.requires_grad]
    seen["gradients"] = {n: safe_get_full_grad(p).clone() for n, p in named}
    rank.update()
    rank.accumulate(7)
    engine.drop_gradients()
    rank.accumulate(8, images=torch.nan)
    seen["not finite"] = engine.gradient_norm()
    engine.drop_gradients()
    # Last: ZeRO 1 and 2 overwrite the gradients of a complete step anyway, not those of a part.
    rank.begin(9)
    engine.drop_gradients()
    rank.accumulate(3)
    rank.update()
    seen["dropped"] = rank.state()

    engine.load_state(begun["model"], copy.deepcopy(begun["optimizer"]))
    for number in (2, 3):
        rank.accumulate(number)
        rank.update()
    seen["undisturbed"] = rank.state()

    engine.load_state(begun["model"], copy.deepcopy(seen["fresh"]))
    rank.accumulate(0)
    rank.update()
    seen["without moments"] = rank.state()

    low = Rank(stage, precision="bf16")
    low.accumulate(0)
    weight = low.engine.objective.get_parameter("image_projection.expand.weight")
    seen["bf16 gradient"] = safe_get_full_grad(weight).clone()
    seen["bf16 weights"] = {tensor.dtype for tensor in low.engine.model_state().values()}
    return seen


class Rank:
    """A new engine on this rank, and its share of the steps."""

    def __init__(self, stage: int, *, precision: str = "float32") -> None:
        from accelerate.state import AcceleratorState

        from distributed_pretrain.training.engine.deepspeed import DeepSpeedEngine

        AcceleratorState._reset_state(reset_partial_state=True)
        training = TrainingConfig.model_validate(
            {
                # Small buckets: several to a backward.
                "distributed": {
                    "name": "deepspeed",
                    "zero_stage": stage,
                    "bucket_elements": 20_000,
                },
                "clip_gradient_norm": CLIP_NORM,
                "precision": precision,
                "gradient_norms_every_steps": None,
            }
        )
        self.engine = DeepSpeedEngine(training)
        method, optimizer = method_and_optimizer()
        torch.manual_seed(0)
        self.engine.prepare(method, optimizer)
        self.drew = torch.rand(3)

    def accumulate(
        self, number: int, *, images: float | None = None, measure_norms: bool = False
    ) -> None:
        """Gradients of this rank's share of a batch, all of its images `images` if given."""
        batch = self.share(number)
        if images is not None:
            batch = replace(batch, images=torch.full_like(batch.images, images))
        accumulate_gradients(
            self.engine, [batch], exact=True, seed=number, measure_norms=measure_norms
        )

    def begin(self, number: int) -> None:
        """Gradients of a micro-batch that is not the last."""
        with self.engine.micro_batch(last=False):
            outputs = self.engine.forward(self.share(number))
            self.engine.backward(self.engine.objective.loss(outputs)["total"])

    def share(self, number: int) -> Batch:
        return global_batch(number).split([1] * self.engine.world_size)[self.engine.rank]

    def update(self) -> None:
        norm = self.engine.gradient_norm()
        self.engine.update(LEARNING_RATE, clip_norm=CLIP_NORM, norm=norm)

    def state(self) -> dict[str, Any]:
        return copy.deepcopy(
            {"model": self.engine.model_state(), "optimizer": self.engine.optimizer_state()}
        )
