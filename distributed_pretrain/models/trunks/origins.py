"""Whose names the tensors of a weights file have, and what they are called in the trunk alone.

An entry for each project. A new one is a line: what stands before the image encoder's names in its
state dicts, and, where it numbers layers that the trunk names, the names in that order.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeVar

# Left by DistributedDataParallel and torch.compile.
_WRAPPED = r"(?:module\.|_orig_mod\.)*"
Value = TypeVar("Value")


class Origin(NamedTuple):
    """`before` matches what precedes the trunk's names; `numbered` names children by number."""

    project: str
    before: str
    numbered: tuple[str, ...] = ()

    def renamed(self, key: str) -> str | None:
        """The trunk's name of a tensor; None for one that is no part of the image encoder."""
        found = re.match(_WRAPPED + self.before, key)
        if found is None:
            return None
        name = key[found.end() :]
        if not self.numbered:
            return name
        number, _, rest = name.partition(".")
        if not number.isdecimal() or int(number) >= len(self.numbered):
            return None
        return f"{self.numbered[int(number)]}.{rest}"


# torchvision's ResNet without pooling and classifier, as nn.Sequential numbers it.
_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")

ORIGINS = (
    # The model's own names; of an `ImageEncoder`, a run's method or an export of one.
    Origin("the model itself", r"(?:method\.)?(?:image_encoder\.)?(?:backbone\.)?(?:model\.)?"),
    # github.com/philip-mueller/lovt: the first modality is the scan.
    Origin("LoVT", r"model_a\.encoder\.feature_extractor\.backbone_layers\."),
    # github.com/marshuang80/gloria: saved by Lightning, with or without its module's name.
    Origin("GLoRIA", r"(?:gloria\.)?img_encoder\.model\."),
    # github.com/HKU-MedAI/MGCA; its ConVIRT has GLoRIA's names.
    Origin("MGCA", r"img_encoder_q\.model\."),
    # github.com/edreisMD/ConVIRT-pytorch; the authors published no weights.
    Origin("ConVIRT", r"(?:res_)?features\.", _RESNET),
)


def from_whoever(
    state: Mapping[str, Value], own: Collection[str]
) -> tuple[Origin, dict[str, Value], list[str]]:
    """The origin by which most of `own` are found in `state`, the earlier of equals.

    With it the tensors of the image encoder by the trunk's names, and the keys of `state` that give
    none of `own`, in order.
    """

    def found(origin: Origin) -> int:
        return len({origin.renamed(key) for key in state} & set(own))

    origin = max(ORIGINS, key=found)
    names = {key: origin.renamed(key) for key in state}
    renamed = {name: state[key] for key, name in names.items() if name is not None}
    return origin, renamed, [key for key, name in names.items() if name not in own]
