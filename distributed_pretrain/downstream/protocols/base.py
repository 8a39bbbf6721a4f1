"""What the settings of every protocol say: what its head predicts, and how it is built."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import NonNegativeInt, PositiveFloat

from data_shards.profiles import Config

if TYPE_CHECKING:
    from distributed_pretrain.downstream.heads.on_encoder import WarmUp
    from distributed_pretrain.methods.objective import Method, Objective

Targets: TypeAlias = Literal["labels", "masks", "boxes"]
EncoderUse: TypeAlias = Literal["frozen", "finetune"]


class HeadSizes(NamedTuple):
    """What a head is built for: so many classes, on images of that side."""

    classes: int
    image_size_px: int


class ProtocolConfig(Config):
    """Base of the settings of a protocol; each adds the `name` that profiles choose it by.

    `TARGETS` is the field of `data` that names what is predicted.
    """

    TARGETS: ClassVar[Targets]

    @property
    def is_frozen(self) -> bool:
        """Whether the encoder keeps its weights and running statistics."""
        return False

    @abstractmethod
    def build(self, encoder: Method, sizes: HeadSizes) -> Objective:
        """The head on the encoder. Raises InputError for one that it does not fit."""


class LocalizedConfig(ProtocolConfig):
    """A head on the encoder's maps, which is frozen, or trained after a warm-up of the head.

    For `warmup_steps` steps at `warmup_learning_rate` the encoder keeps weights and statistics;
    then all is trained at `optimizer.learning_rate`. The encoder's batch norms train with it
    `at_once`, or, as LoVT's authors have it, keep their statistics until the `next_epoch` begins.
    """

    encoder: EncoderUse = "frozen"
    warmup_steps: NonNegativeInt = 100
    warmup_learning_rate: PositiveFloat = 1e-3
    batch_norms_after_warmup: Literal["at_once", "next_epoch"] = "at_once"

    @property
    def is_frozen(self) -> bool:
        """As `encoder` says."""
        return self.encoder == "frozen"

    @property
    def warms_up(self) -> bool:
        """Whether the head learns alone at first, and the encoder later."""
        return not self.is_frozen and self.warmup_steps > 0

    def warm_up(self) -> WarmUp | None:
        """None for a frozen encoder, and without steps."""
        from distributed_pretrain.downstream.heads.on_encoder import WarmUp

        if not self.warms_up:
            return None
        waits = self.batch_norms_after_warmup == "next_epoch"
        return WarmUp(self.warmup_steps, self.warmup_learning_rate, norms_wait_for_epoch=waits)
