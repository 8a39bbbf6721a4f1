"""What a trainer needs: a module, its loss in two kinds of terms, and two hooks around a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.batch import Batch, cat_padded
from distributed_pretrain.models.image_encoder import GreyImages, ImageEncoder, upsampled


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What `forward` gives, and losses and measures read; an objective adds its own.

    Rows whose `sample_mask` is False mean nothing.
    """

    sample_mask: Bool[Tensor, " batch"]


@dataclass(frozen=True)
class Contrasted:
    """What the losses between samples compare.

    `rows` have the samples as their first dimension: those of several micro-batches are joined
    along it. `shared` are learnt numbers (temperatures), the same for all samples. `counts` are of
    each sample's parts, on the host, where that knows them.
    """

    rows: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[str, Any]:
        """All of it, as `batch_terms` takes it."""
        return self.rows | self.shared | self.counts

    @classmethod
    def joined(cls, parts: Sequence[Contrasted]) -> Contrasted:
        """The samples of all parts one after another, padded to the longest."""
        first = parts[0]
        return cls(
            rows={name: cat_padded([each.rows[name] for each in parts]) for name in first.rows},
            shared=first.shared,
            counts={name: sum((e.counts[name] for e in parts), ()) for name in first.counts},
        )

    def chunks(self, count: int) -> list[Contrasted]:
        """Equal parts of the samples, which lie one after another."""
        if count == 1:
            return [self]
        rows = zip(*(each.chunk(count) for each in self.rows.values()), strict=True)
        size = len(next(iter(self.rows.values()))) // count
        return [
            Contrasted(
                dict(zip(self.rows, part, strict=True)),
                self.shared,
                {
                    name: each[number * size : (number + 1) * size]
                    for name, each in self.counts.items()
                },
            )
            for number, part in enumerate(rows)
        ]


class Objective(nn.Module, ABC):
    """Something to minimise: a pre-training method, or a head on an encoder.

    A training step is `loss(forward(batch))`. `forward` runs once a step (twice with exact
    accumulation), touches every trained parameter and returns all the loss needs. The loss falls
    into two kinds of terms: `batch_terms` compare samples with each other and may gather over
    ranks; `sample_terms` are means over samples of what each yields by itself. All are scalar and
    unweighted, each the mean over this rank's samples of a loss whose average over ranks is that of
    the whole batch.
    The loss has no parameters of its own: what it learns comes in through `forward`, so that DDP
    sees it. Samples whose `sample_mask` is False reach no statistic, gradient or loss.

    What an objective sets: `term_weights`, the terms' factors in the total, which with `"total"`
    name what `loss` returns (without any there is nothing to train), `contrasts_samples`, False
    where there are no batch terms, and `predicts_labels` and `predicts_masks`, whether its outputs
    are `LabelOutputs` or `MaskOutputs`.
    """

    term_weights: dict[str, float]
    contrasts_samples: bool = True
    predicts_labels: bool = False
    predicts_masks: bool = False

    @abstractmethod
    def forward(self, batch: Batch) -> Any:
        """Every output the loss needs, as one dataclass of tensors."""

    def contrasted(self, outputs: Any) -> Contrasted:
        """What `batch_terms` compares; by default all of the outputs, which are tensors then."""
        return Contrasted(rows=vars(outputs))

    def batch_terms(self, *_: Any, **contrasted: Any) -> dict[str, Tensor]:
        """Terms between samples, of all that `contrasted` gave, by name."""
        return {}

    def sample_terms(self, outputs: Any) -> dict[str, Tensor]:
        """Terms within samples."""
        return {}

    def features_of(self, batch: Batch) -> dict[str, Tensor]:
        """What a frozen encoder makes of a batch, a row a sample: see `Batch.features`."""
        raise NotImplementedError("nothing of it can be kept")

    def weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each term times its weight."""
        return {name: self.term_weights[name] * term for name, term in terms.items()}

    def loss(self, outputs: Any) -> dict[str, Tensor]:
        """Scalar loss terms by name; `"total"`, their weighted sum, is the one to minimise."""
        contrasted = self.contrasted(outputs)
        terms = self.batch_terms(**contrasted.by_name)
        terms |= self.sample_terms(outputs)
        return {"total": sum_of(self.weighted(terms)), **terms}

    def start_step(self, *, epoch: int, step: int = 0) -> None:
        """Called before each step, with its number and the epoch of its samples (from 0)."""

    def learning_rate(self, step: int, scheduled: float) -> float:
        """The rate of the update of step `step`: the `scheduled` one."""
        return scheduled

    def after_backward(self) -> None:
        """Called when the step's gradients stand in the parameters, before its update.

        A parameter whose gradient is set to None here is left as it is.
        """

    def after_update(self, *, progress: float, made: Bool[Tensor, ""] | None = None) -> None:
        """Called after each update, on every rank.

        `progress` is the share of the run's steps that came before it. Where `made` is False the
        update was skipped, and nothing may change: known on the device, which the host does not
        wait for. None: it was made.
        """


class Method(Objective):
    """A pre-training method, which hands on its `image_encoder`.

    `max_tokens` is the longest report its text encoder takes; None: it reads none. `upsample_px` is
    the side to which images are stretched before they are encoded; None: they are not.
    """

    image_encoder: ImageEncoder
    max_tokens: int | None = None
    upsample_px: int | None = None

    def upsampled(self, images: GreyImages) -> Float[Tensor, "batch 1 new_height new_width"]:
        """The images as the encoder gets them."""
        return upsampled(images, self.upsample_px)

    def feature_map(
        self, images: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The image encoder's last feature map, before any head: what downstream tasks build on."""
        last_map: Tensor = self.image_encoder(self.upsampled(images))
        return last_map


def sum_of(terms: dict[str, Tensor]) -> Float[Tensor, ""]:
    """The sum of scalar terms."""
    return reduce(torch.add, terms.values())
