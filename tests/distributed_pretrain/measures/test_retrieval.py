"""Retrieval: recalls against a naive loop, ties, identical reports, chunks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from distributed_pretrain.measures.retrieval import (
    retrieval_in_chunks,
    retrieval_metrics,
)


def _embeddings(samples: int, *, noise: float = 1.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(samples, 16, generator=generator, dtype=torch.float64)
    return image, image + noise * torch.randn(samples, 16, generator=generator, dtype=torch.float64)


def _cosine(image: Tensor, report: Tensor) -> Tensor:
    image, report = (torch.nn.functional.normalize(each, dim=1) for each in (image, report))
    return image @ report.T


def _naive_recall(queries: Tensor, answers: Tensor, groups: Sequence[int], k: int) -> float:
    """Walk down each query's answers, wrong ones first where scores are equal."""
    hits = 0
    for query, own in zip(queries, groups, strict=True):
        scores = [float(torch.cosine_similarity(query, each, dim=0)) for each in answers]
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], groups[i] == own))
        wrong_before = [groups[i] == own for i in order].index(True)
        hits += wrong_before < k
    return hits / len(queries)


@pytest.mark.parametrize("distinct_reports", [40, 11])
def test_recalls_equal_a_naive_walk_down_the_ranking(distinct_reports: int) -> None:
    image, report = _embeddings(40)
    groups = [i % distinct_reports for i in range(40)]
    report = report[groups]
    metrics = retrieval_metrics(_cosine(image, report), groups=groups)
    for k in (1, 5, 10):
        forth = _naive_recall(image, report, groups, k)
        back = _naive_recall(report, image, groups, k)
        assert metrics[f"image_to_report_recall_at_{k}"] == pytest.approx(forth)
        assert metrics[f"report_to_image_recall_at_{k}"] == pytest.approx(back)
        assert metrics[f"recall_at_{k}"] == pytest.approx((forth + back) / 2)


def test_the_recall_sum_adds_both_directions_of_every_k() -> None:
    metrics = retrieval_metrics(_cosine(*_embeddings(30)))
    single = [
        metrics[f"{way}_recall_at_{k}"]
        for way in ("image_to_report", "report_to_image")
        for k in (1, 5, 10)
    ]
    assert metrics["recall_sum"] == pytest.approx(sum(single))
    assert 0 < metrics["recall_sum"] < 6


def test_the_two_directions_are_not_swapped() -> None:
    # Every report points at image 0: it finds the right image once, but each image has to tell
    # its report from equal ones.
    image = torch.eye(4)
    report = image[[0, 0, 0, 0]]
    metrics = retrieval_metrics(_cosine(image, report))
    assert metrics["report_to_image_recall_at_1"] == 0.25
    assert metrics["image_to_report_recall_at_1"] == 0.0


def test_matching_embeddings_are_all_found() -> None:
    image, _ = _embeddings(25)
    assert retrieval_metrics(_cosine(image, 3 * image))["recall_sum"] == 6.0


@pytest.mark.parametrize("constant", ["image", "report", "both"])
def test_a_constant_embedding_finds_nothing(constant: str) -> None:
    image, report = (each.float() for each in _embeddings(50))
    one = torch.linspace(-1, 2, 16).expand(50, 16)
    image = report if constant == "report" else one
    report = one if constant in ("report", "both") else report
    metrics = retrieval_metrics(_cosine(image, report), chunk_size=7)
    # With one side constant the other direction still has distinct scores: chance, k / samples.
    assert metrics["recall_at_10"] <= 10 / 50
    if constant == "both":
        assert metrics["recall_sum"] == 0.0


def test_embeddings_that_are_not_numbers_are_never_hits() -> None:
    image, report = _embeddings(50)
    assert retrieval_metrics(_cosine(image * torch.nan, report))["recall_sum"] == 0.0
    report[3] = torch.nan
    # One report ties with every right answer, so nothing is first any more.
    assert retrieval_metrics(_cosine(image, report))["image_to_report_recall_at_1"] == 0.0


def test_any_identical_report_is_a_right_answer() -> None:
    image = torch.eye(3)
    report = image[[1, 0, 2]]
    assert retrieval_metrics(_cosine(image, report))["recall_at_1"] == pytest.approx(1 / 3)
    grouped = retrieval_metrics(_cosine(image, report), groups=[1, 1, 2])
    assert grouped["recall_at_1"] == 1.0


def test_identical_reports_do_not_push_each_other_down() -> None:
    # Twelve clear chests, their reports all equal: the own report is a hit at 1, not at 12.
    image = torch.eye(13)
    report = torch.cat([image[:1].expand(12, 13), image[12:]])
    image = torch.cat([image[:1].expand(12, 13), image[12:]])
    metrics = retrieval_metrics(_cosine(image, report), groups=[1] * 12 + [2])
    assert metrics["recall_sum"] == 6.0


@pytest.mark.parametrize("chunk_size", [1, 7, 40, 1000])
def test_the_chunk_size_changes_nothing(chunk_size: int) -> None:
    image, report = _embeddings(40)
    groups = [i // 2 for i in range(40)]
    whole = retrieval_metrics(_cosine(image, report), groups=groups)
    assert retrieval_metrics(_cosine(image, report), groups=groups, chunk_size=chunk_size) == whole


def test_the_order_of_the_samples_changes_nothing() -> None:
    similarity = _cosine(*_embeddings(40))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert retrieval_metrics(similarity[order][:, order]) == retrieval_metrics(similarity)


def test_chunks_are_searched_by_themselves_and_a_last_part_is_left_out() -> None:
    similarity = _cosine(*_embeddings(25))
    parts = [retrieval_metrics(similarity[s : s + 10, s : s + 10]) for s in (0, 10)]
    for name, value in retrieval_in_chunks(similarity, size=10).items():
        assert value == pytest.approx((parts[0][name] + parts[1][name]) / 2)
    assert retrieval_in_chunks(similarity, size=26) == {}


def test_what_is_no_square_and_groups_of_another_length_are_refused() -> None:
    similarity = _cosine(*_embeddings(4))
    for wrong in (similarity[:3], similarity[:0, :0]):
        with pytest.raises(ValueError, match="as many"):
            retrieval_metrics(wrong)
    with pytest.raises(ValueError, match="3 groups"):
        retrieval_metrics(similarity, groups=[1, 2, 3])
