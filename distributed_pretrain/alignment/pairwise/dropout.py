"""Dropout whose every number is a function of a seed, the pair and the place.

So a pair drops the same numbers in forward, in the backward that computes it again, and whatever
other pairs share its block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Constants of MurmurHash3's 64-bit finaliser, as signed numbers.
_MIX_1, _MIX_2 = -49064778989728563, -4265267296055464877
_LOW_31 = 2**31 - 1


@dataclass(frozen=True)
class PairDropout:
    """Which numbers of a block of pairs are dropped, each with probability `rate`.

    A number of token t is dropped where table[t, d] x key[pair], wrapped to 32 bits, is among
    the lowest: within a pair as random as the table's hash, and with the key an odd number, another
    such table for every pair. The direction in which `regions_attend` has places of its own.
    """

    rate: float
    seed: int
    image_ids: Tensor
    report_ids: Tensor
    regions_attend: bool = False

    @property
    def scale(self) -> float:
        """What is kept grows by this."""
        return 1 / (1 - self.rate)

    def of_block(self, images: slice, reports: slice, *, regions_attend: bool) -> PairDropout:
        """The dropout of a block, for the direction in which words or regions attend."""
        return replace(
            self,
            image_ids=self.image_ids[images],
            report_ids=self.report_ids[reports],
            regions_attend=regions_attend,
        )

    def drop_tokens_(self, values_OITD: Tensor) -> Tensor:
        """`values` with the dropped numbers set to 0, in place; the rest is not scaled."""
        tokens, dim = values_OITD.shape[-2:]
        return values_OITD.masked_fill_(self._dropped(0, tokens, dim), 0.0)

    def drop_pairs_(self, values_OID: Tensor) -> Tensor:
        """As `drop_tokens_`, for one vector of every pair."""
        dropped_OI1D = self._dropped(2**39, 1, values_OID.shape[-1])
        return values_OID.masked_fill_(dropped_OI1D[:, :, 0], 0.0)

    def _dropped(self, offset: int, tokens: int, dim: int) -> Tensor:
        pair_ids = self.image_ids[:, None] * 2**31 + self.report_ids
        if self.regions_attend:
            offset, pair_ids = offset + 2**40, pair_ids.T
        places = torch.arange(tokens * dim, device=self.image_ids.device) + offset
        table = hash_of(places, self.seed).view(tokens, dim)
        keys = hash_of(pair_ids, self.seed + 1) | 1
        lowest = round(self.rate * 2**32) - 2**31
        return _low_32(table) * _low_32(keys)[..., None, None] < lowest


def hash_of(values: Tensor, seed: int) -> Tensor:
    """64 well-mixed bits for each of the int64 `values` (MurmurHash3's finaliser)."""
    mixed = values + seed * 0x632BE5AB
    for factor in (_MIX_1, _MIX_2):
        mixed = (mixed ^ _upper_31(mixed)) * factor
    return mixed ^ _upper_31(mixed)


def _upper_31(values: Tensor) -> Tensor:
    """`values` >> 33 without the sign, which torch would shift in."""
    return (values >> 33) & _LOW_31


def _low_32(values: Tensor) -> Tensor:
    """The low 32 bits as int32, whose products wrap."""
    return values.to(torch.int32)
