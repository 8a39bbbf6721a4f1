"""What a tiny archive holds, whatever its layout: a row an image."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

REPORT = " FINAL REPORT\n FINDINGS: Lungs are\n clear.\n IMPRESSION: Normal.\n"


@dataclass(frozen=True)
class TinyImage:
    """An image, its study and the report of that study.

    Ids are such as the strictest layout takes; view and split are PA, AP, L and train, validate,
    test, or any word for one that is not known.
    """

    id: str
    patient: str
    study: str
    view: str = "PA"
    split: str = "train"
    report: str = REPORT


def draw_image(path: Path) -> None:
    """A small picture at `path`, another for every name; its folders are made."""
    random = np.random.default_rng(list(sha256(path.name.encode()).digest()))
    coarse = Image.fromarray(random.integers(0, 255, (6, 5), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize((50, 60), Image.Resampling.BICUBIC).save(path)
