"""What a build stores and yet has to tell: rules that had to guess, and pictures of nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

NoteKind: TypeAlias = Literal[
    "unused_bits",
    "clipped",
    "turned",
    "orientation_unknown",
    "plain",
    "small",
    "plain_mask",
    "boxes_cut",
]

# By kind: what is the matter with the images, and what may be done.
_TEXTS: dict[NoteKind, tuple[str, str]] = {
    "unused_bits": (
        "use fewer bits than their files have, so that they fill a part of the grey scale",
        "set source.bits to what they hold, or to in_use, or to 16 if all is well",
    ),
    "clipped": (
        "have samples beyond the bits that count, stored as black or white",
        "a marker may be burnt in; if not, correct source.bits",
    ),
    "turned": (
        "were turned upright, as their orientation tags say; so boxes and masks are understood",
        "set source.orientation=as_stored if these tags are wrong",
    ),
    "orientation_unknown": (
        "have metadata that cannot be read, or name no orientation that there is, and are stored "
        "as they lie",
        "look at them",
    ),
    "plain": (
        "are of one value or nearly: 99 % of their pixels have fewer than 32 grey levels",
        "look at them, and mend them or leave them out of the table",
    ),
    "small": ("have a side under 16 px", "leave them out of the table"),
    "boxes_cut": ("have boxes that reached out of them, which were cut", "look at the table"),
    "plain_mask": ("have a mask with nothing or all of the picture inside", "look at the masks"),
}
_SHOWN = 3


class Note(NamedTuple):
    """Something about one stored image. `detail` says how much, in few words."""

    kind: NoteKind
    detail: str = ""


def told(notes: Iterable[tuple[str, str, str]], *, images: int) -> tuple[str, ...]:
    """A line for each kind of note, with counts and the first names.

    `notes` are (name of the image, kind, detail); `images` is how many there are in all.
    """
    lines = []
    ordered = sorted(notes)
    for kind, (matter, remedy) in _TEXTS.items():
        here = [(name, detail) for name, its_kind, detail in ordered if its_kind == kind]
        if not here:
            continue
        details = Counter(detail for _, detail in here if detail).most_common()
        said = [f"{detail}: {count:,}" for detail, count in details[:_SHOWN]]
        said += ["..."] if len(details) > _SHOWN else []
        names = ", ".join(name for name, _ in here[:_SHOWN])
        told = "; ".join([", ".join(said), f"first {names}"] if said else [f"first {names}"])
        lines.append(f"{len(here):,} of {images:,} images {matter} ({told}): {remedy}")
    return tuple(lines)
