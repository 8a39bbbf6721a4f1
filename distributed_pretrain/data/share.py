"""Which part of each global batch is a rank's, and which batches are a process's of the rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

HOST = torch.device("cpu")

Each = TypeVar("Each")


@dataclass(frozen=True)
class Share:
    """Whose part of each global batch a loader gives, and the device that it lies on."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = HOST

    def of(
        self, global_positions: NDArray[np.int64], *, micro_batches: int = 1
    ) -> NDArray[np.int64]:
        """This rank's part of a global batch, which the ranks' parts join to.

        Its equal parts are the rank's contiguous shares of the global batch's equal parts, so that
        the samples of a micro-batch are the same for any number of ranks.
        """
        parts = np.reshape(global_positions, (micro_batches, self.world_size, -1))
        return parts[:, self.rank].reshape(-1)


ALONE = Share()


class Turn(NamedTuple):
    """Of every `of` batches of a rank the one of this `number`, from 0."""

    number: int = 0
    of: int = 1

    def among(self, batches: Iterator[Each]) -> Iterator[Each]:
        """Those whose turn it is."""
        return islice(batches, self.number, None, self.of)


EVERY = Turn()
