"""The contrast of sentences, or words, with the regions of all images, as methods take it.

What it computes is held by its own tests; here what it is given, and that heat is what it compares.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.image_text import ImageTextMethod
from tests.distributed_pretrain.losses.test_sentence_region_contrast import by_loops
from tests.tiny.batches import as_double, random_batch
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile

# Of spec and docs/grounding.md.
TEMPERATURE = 0.1
NAMES = sorted(name for name in PROFILES if name.startswith("phantom") and "_regions" in name)
# Reports of 1, 3, 2 and 1 sentences of three words and four tokens each, behind [CLS].
A_SENTENCE = 4


def made(name: str) -> tuple[ImageTextMethod, Batch]:
    """A method in float64, and reports of which two are the same and one says a sentence twice."""
    config = tiny_profile(name)
    method = tiny_method(config)
    assert isinstance(method, ImageTextMethod)
    batch = as_double(random_batch(config, 4))
    ids = batch.report.token_ids
    ids[3] = ids[0]
    ids[1, 1 + 2 * A_SENTENCE : 1 + 3 * A_SENTENCE] = ids[1, 1 : 1 + A_SENTENCE]
    return method.double().eval(), batch


def parts_of(name: str, batch: Batch, reports: Any) -> tuple[Tensor, list[list[tuple[int, ...]]]]:
    """What meets regions: the embeddings, and the text of each."""
    report = batch.report
    words = not name.startswith("phantom_lovt")
    index = report.word_index if words else report.sentence_index
    texts = [
        [tuple(ids[parts == part].tolist()) for part in range(int(parts.max()) + 1)]
        for ids, parts in zip(report.token_ids, index, strict=True)
    ]
    # GLoRIA's and LIMITR's first is [CLS].
    first = 1 if name.startswith(("phantom_gloria", "phantom_limitr")) else 0
    return reports.local[:, first:], texts


def test_profiles_are_found() -> None:
    assert {name.split("_")[1] for name in NAMES} == {"gloria", "limitr", "lovt", "mgca"}


@pytest.mark.parametrize("name", NAMES)
def test_the_term_is_its_formula_of_what_the_method_embeds(name: str) -> None:
    method, batch = made(name)
    outputs: Any = method(batch)
    terms = method.loss(outputs)
    term = terms["word_region" if "word_region" in terms else "pair"]
    embeddings, texts = parts_of(name, batch, outputs.reports)
    given = {"sentences": embeddings, "regions": outputs.images.regions.flatten(1, 2)}
    weights = outputs.reports.local_weights if "word_region" in terms else None
    counted = None if weights is None else weights.tolist()
    expected = by_loops(given, texts, counted, tau=TEMPERATURE)
    assert term.item() == pytest.approx(expected, rel=1e-9)
    assert expected > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_heat_is_the_cosine_that_the_term_compares(name: str) -> None:
    method, batch = made(name)
    outputs: Any = method(batch)
    embeddings, texts = parts_of(name, batch, outputs.reports)
    regions = outputs.images.regions.flatten(1, 2)
    heat = method.grounding_map(outputs.reports, outputs.images).flatten(1)
    weights = outputs.reports.local_weights
    for b in (0, 3):  # the phrases: reports of one sentence
        cosines = torch.stack(
            [
                cosine_similarity(embeddings[b, part][None], regions[b])
                for part in range(len(texts[b]))
            ]
        )
        if name.startswith("phantom_mgca"):
            cosines = weights[b, : len(texts[b]), None] * cosines
        expected = cosines.sum(dim=0)
        # Each phrase by a scale of its own: only places within it are compared.
        scale = heat[b].norm() / expected.norm()
        torch.testing.assert_close(heat[b], scale * expected, rtol=1e-9, atol=1e-12)
        assert heat[b].std() > 0
