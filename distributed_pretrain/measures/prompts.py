"""What classes are called in the words of a report, for zero-shot classification.

Nothing here needs torch: settings read it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from data_shards.profiles import Config

Sentences = tuple[Annotated[str, Field(min_length=1)], ...]


class ClassPrompts(Config):
    """Sentences that say a finding is present, and perhaps some that say it is absent."""

    present: Annotated[Sentences, Field(min_length=1)]
    absent: Sentences = ()


class PromptsConfig(Config):
    """The prompts of each class, by the name that the class has among the labels of shards."""

    classes: Annotated[dict[str, ClassPrompts], Field(min_length=1)]
