"""The settings of GLoRIA."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.methods.words.settings import WordsConfig

if TYPE_CHECKING:
    from distributed_pretrain.methods.gloria.method import Gloria


class GloriaConfig(WordsConfig):
    """The paper's settings.

    `temperature` divides the global cosine and the local similarity alike (the paper's 10 is its
    inverse).
    """

    READS: ClassVar[Reads] = Reads(
        text_policy="gloria", sentences="one", sentence_swaps=False, max_tokens=97
    )

    name: Literal["gloria"] = "gloria"
    attention_temperature: PositiveFloat = 4.0
    word_temperature: PositiveFloat = 5.0
    local_weight: NonNegativeFloat = 1.0

    def build(self, sizes: Sizes) -> Gloria:
        """The method."""
        from distributed_pretrain.methods.gloria.method import Gloria

        return Gloria(self, self.image_encoder.build(), self.report_encoder.build(sizes.vocabulary))
