"""Reports laid one behind another in few rows, so that a text encoder reads hardly any padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# Of rows, in tokens: compilers and allocators want few.
WIDTHS = (64, 96, 128, 192, 256, 384, 512)
_STEP = 32


@dataclass(frozen=True)
class Packing:
    """Where the tokens of reports lie that were padded to a common width: in `rows` of `width`.

    Each report is whole in one row. `padded` are the places of the real tokens among the padded
    reports' (row by row), `packed` those among the packed rows' tokens. That no report sees
    another is the encoder's to mask.
    """

    rows: int
    width: int
    padded: Int[Tensor, " tokens"]
    packed: Int[Tensor, " tokens"]

    @classmethod
    def of(cls, lengths: Sequence[int], padded_width: int, device: torch.device) -> Packing:
        """The fewest tokens in all that rows of one of `WIDTHS` can hold these reports in.

        Best-fit decreasing; `lengths` are theirs, in tokens, all at least 1 but for reports that
        are not there. Nobody waits for the device.
        """
        longest = max(lengths)
        wide = -(-longest // _STEP) * _STEP
        fitted = [_best_fit(lengths, each) for each in WIDTHS if each >= longest] or [
            _best_fit(lengths, wide)
        ]
        width, rows, starts = min(fitted, key=lambda each: each[0] * each[1])
        counts = np.asarray(lengths)
        report = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(report)) - np.repeat(counts.cumsum() - counts, counts)
        places = torch.from_numpy(
            np.stack([report * padded_width + within, np.asarray(starts)[report] + within])
        )
        if device.type == "cuda":
            places = places.pin_memory()
        padded, packed = places.to(device, non_blocking=True)
        return cls(rows, width, padded, packed)

    @property
    def tokens(self) -> int:
        """How many an encoder computes."""
        return self.rows * self.width

    def pack(
        self, values: Int[Tensor, "batch tokens"], *, filler: int
    ) -> Int[Tensor, "{self.rows} {self.width}"]:
        """What each token has, `filler` where there is none."""
        packed = values.new_full((self.tokens,), filler)
        packed.index_copy_(0, self.packed, values.flatten()[self.padded])
        return packed.view(self.rows, self.width)

    def unpack(
        self, states: Float[Tensor, "{self.rows} {self.width} dim"], *, batch: int, tokens: int
    ) -> Float[Tensor, "{batch} {tokens} dim"]:
        """The vectors of `batch` reports padded to `tokens`, zeros where there is no token."""
        real = states.flatten(0, 1).index_select(0, self.packed)
        padded = states.new_zeros(batch * tokens, states.shape[2]).index_copy(0, self.padded, real)
        return padded.view(batch, tokens, -1)


def _best_fit(lengths: Sequence[int], width: int) -> tuple[int, int, list[int]]:
    """(width, rows, where each report begins), the longest first into the fullest row it fits."""
    starts, rows = [0] * len(lengths), 0
    open_rows: list[tuple[int, int]] = []  # (room left, row), ascending
    for report in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        at = bisect_left(open_rows, (lengths[report], 0))
        if at == len(open_rows):
            room, row = width, rows
            rows += 1
        else:
            room, row = open_rows.pop(at)
        starts[report] = (row + 1) * width - room
        insort(open_rows, (room - lengths[report], row))
    return width, rows, starts
