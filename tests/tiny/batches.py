"""Random batches for methods: what their reports look like, and how they are padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from distributed_pretrain.batch import Batch, Lateral, ReportTokens, SecondView
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.tiny.sizes import IMAGE_SIZE_PX, VOCABULARY_SIZE

# A report as the number of tokens in each word of each of its sentences.
Pieces = Sequence[Sequence[int]]

_FILLER: dict[torch.dtype, float] = {torch.bool: False, torch.int64: -1}


def random_batch(config: PretrainConfig, rows: int, *, seed: int = 1) -> Batch:
    """All that the profile's method reads: some studies lack a lateral, some labels are unknown.

    Reports have one to three sentences.
    """
    generator = torch.Generator().manual_seed(seed)
    data = config.data
    batch = batch_of(
        [_sentences(1 + 2 * row % 3) for row in range(rows)],
        laterals=[row % 3 != 1 for row in range(rows)] if data.views == "frontal_lateral" else None,
        seed=seed,
    )
    if data.views == "two_augmentations":
        second = SecondView(_images(rows, IMAGE_SIZE_PX, generator), _crops(rows, generator))
        batch = replace(batch, second_view=second)
    if data.labels:
        values = torch.tensor([1.0, 0.0, -1.0, torch.nan])
        drawn = torch.randint(0, len(values), (rows, len(data.labels)), generator=generator)
        batch = replace(batch, labels=values[drawn])
    return batch


def pairs_of_sentences(*counts: int, image_size_px: int = IMAGE_SIZE_PX) -> Batch:
    """Images and reports of so many sentences."""
    return batch_of([_sentences(count) for count in counts], image_size_px=image_size_px)


def pairs_of_words(rows: int, *, laterals: Sequence[bool] | None = None) -> Batch:
    """Images and reports of one sentence of one to four words, in float64.

    48 px give 3 x 3 regions; `laterals` are as in `batch_of`.
    """
    reports = [[(2, *(1,) * (3 * row % 4))] for row in range(rows)]
    return as_double(batch_of(reports, image_size_px=48, laterals=laterals))


def batch_of(
    reports: Sequence[Pieces],
    *,
    image_size_px: int = IMAGE_SIZE_PX,
    laterals: Sequence[bool] | None = None,
    seed: int = 1,
) -> Batch:
    """A study for each report; `laterals` says which of them have one."""
    rows, generator = len(reports), torch.Generator().manual_seed(seed)
    batch = Batch(
        keys=tuple(f"study-{row}" for row in range(rows)),
        images=_images(rows, image_size_px, generator),
        report=report_tokens(reports, generator),
        sample_mask=torch.ones(rows, dtype=torch.bool),
    )
    if laterals is None:
        return batch
    mask = torch.tensor(laterals)
    images = _images(rows, image_size_px, generator) * mask[:, None, None, None]
    return replace(batch, lateral=Lateral(images, mask))


def _sentences(count: int) -> Pieces:
    """Three words each, the first of which has two tokens."""
    return [(2, 1, 1)] * count


def report_tokens(reports: Sequence[Pieces], generator: torch.Generator) -> ReportTokens:
    """Random tokens of reports of these sentences and words, between [CLS] and [SEP]."""
    sentences, words = [], []
    for report in reports:
        sentence_of, word_of, count = [-1], [-1], 0
        for number, sentence in enumerate(report):
            for pieces in sentence:
                sentence_of += [number] * pieces
                word_of += [count] * pieces
                count += 1
        sentences.append([*sentence_of, -1])
        words.append([*word_of, -1])
    longest = max(map(len, words))
    token_mask = torch.tensor([[i < len(each) for i in range(longest)] for each in words])
    token_ids = torch.randint(5, VOCABULARY_SIZE, token_mask.shape, generator=generator)
    most = torch.arange(max(map(len, reports)))
    return ReportTokens(
        token_ids=token_ids * token_mask,
        token_mask=token_mask,
        sentence_index=torch.tensor([each + [-1] * (longest - len(each)) for each in sentences]),
        sentence_mask=torch.stack([most < len(report) for report in reports]),
        word_index=torch.tensor([each + [-1] * (longest - len(each)) for each in words]),
        lengths=tuple(map(len, words)),
        sentences=tuple(map(len, reports)),
        words=tuple(sum(map(len, report)) for report in reports),
    )


def _images(rows: int, size_px: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, 1, size_px, size_px, generator=generator)


def _crops(rows: int, generator: torch.Generator) -> Tensor:
    """Maps of two crops of 0.6 of the image's side that always overlap, the second flipped."""
    corners = 0.4 * torch.rand(rows, 2, 2, generator=generator)
    maps = torch.zeros(rows, 2, 2, 3)
    maps[:, :, 0, 0] = maps[:, :, 1, 1] = 0.6
    maps[..., 2] = corners
    maps[:, 1, 0, 0] = -0.6
    maps[:, 1, 0, 2] += 0.6
    return maps


def with_host_facts(batch: Batch) -> Batch:
    """As a loader gives it: the host knows which samples and laterals are real."""
    batch = replace(batch, real=tuple(batch.sample_mask.tolist()))
    if batch.lateral is not None:
        lateral = replace(batch.lateral, present=tuple(batch.lateral.mask.tolist()))
        batch = replace(batch, lateral=lateral)
    return batch


def as_double(batch: Batch) -> Batch:
    """The same numbers in float64."""
    return batch.map_tensors(lambda each: each.double() if each.is_floating_point() else each)


def with_padded_samples(batch: Batch, rows: int) -> Batch:
    """`batch` after `rows` samples that are not there: NaN pixels, reports without a token."""

    def extended(values: Tensor) -> Tensor:
        missing = values.new_full((rows, *values.shape[1:]), _FILLER.get(values.dtype, torch.nan))
        return torch.cat([missing, values])

    padded = replace(batch, keys=()).map_tensors(extended)
    ids = padded.report.token_ids.clamp(min=0)
    report = replace(padded.report, token_ids=ids, lengths=(), sentences=(), words=())
    return replace(padded, keys=("",) * rows + batch.keys, report=report)


def with_padded_reports(batch: Batch, *, tokens: int, sentences: int = 0) -> Batch:
    """The same reports with further padding, in which any token may stand."""

    def longer(values: Tensor, filler: int) -> Tensor:
        return pad(values, (0, tokens), value=filler)

    report = batch.report
    padded = ReportTokens(
        token_ids=longer(report.token_ids, 7),
        token_mask=longer(report.token_mask, False),
        sentence_index=longer(report.sentence_index, -1),
        sentence_mask=pad(report.sentence_mask, (0, sentences), value=False),
        word_index=longer(report.word_index, -1),
    )
    return replace(batch, report=padded)
