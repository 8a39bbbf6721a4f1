"""What an objective reads of a study: said by its settings, once, and needed in no profile."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from data_shards.records.policies import TextPolicy
from distributed_pretrain.data.settings import Sentences, Views


@dataclass(frozen=True)
class Reads:
    """Defaults of the fields of `data` with these names.

    A profile may differ in all but `views`, without which there is no loss.
    """

    views: Views = "frontal"
    text_policy: TextPolicy = "lovt"
    sentences: Sentences = "all"
    sentence_swaps: bool = True
    max_tokens: int = 512

    def fill(self, data: dict[str, Any]) -> dict[str, Any]:
        """The values of `data` with what they leave open."""
        return {**asdict(self), **data}
