"""`README.md` of a shard folder: what lies there, and how WebDataset and `datasets` read it.

Studies differ in their number of images and masks. Hugging Face's `datasets` takes the members of
the first five for those of all, so it refuses such shards, or would leave the second image of a
sixth out; by the table of members at the head of this page it reads all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from data_shards.records.manifest import Manifest, ShardIndex
from data_shards.records.study import SPLITS

CARD_NAME = "README.md"
_MARK = "Written by `python -m data_shards build`"
_PAGE = """\
---
{head}---
# Radiographs and reports: {source}

{mark}; licence of the data: {licence}. {counts}.

A sample is a study: `json` is its record, `image0.jpg`, `image1.jpg` ... are its images, in the
order of `images` in the record, which has their views, and `mask_*.png` its masks. Members that a
study lacks are missing from its sample; `datasets` gives None for them.

```python
import datasets
studies = datasets.load_dataset("FOLDER", split="train")  # or streaming=True
studies[0]["image0.jpg"], studies[0]["json"]["report"]["sentences"]

import webdataset
studies = webdataset.WebDataset("FOLDER/{first}", shardshuffle=False)
for image, record in studies.decode("pil").to_tuple("image0.jpg", "json"): ...
```
"""


def dataset_card(folder: Path, manifest: Manifest, indices: Sequence[ShardIndex]) -> str | None:
    """The page for `folder`; None where a page of somebody else's has its name."""
    path = folder / CARD_NAME
    if path.is_file() and _MARK.encode() not in path.read_bytes():
        return None
    members = sorted({name for each in indices for name in each.samples.members})
    features = [
        *({"name": name, "dtype": "string"} for name in ("__key__", "__url__")),
        *({"name": name, "dtype": "json" if name == "json" else "image"} for name in members),
    ]
    splits = [split for split in SPLITS if manifest.samples_by_split.get(split)]
    files = [{"split": split, "path": f"{split}-*.tar"} for split in splits]
    head = {
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": features},
    }
    return _PAGE.format(
        head=yaml.safe_dump(head, sort_keys=False),
        mark=_MARK,
        source=manifest.source,
        licence=" ".join(manifest.licence.split()),
        counts=", ".join(f"{manifest.samples_by_split[split]:,} {split}" for split in splits),
        first=manifest.shards[0].tar_name,
    )
