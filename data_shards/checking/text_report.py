"""What reading made of the reports of shards: kept, dropped and why, with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.checking.stored_studies import shards_of, studies_of
from data_shards.errors import InputError
from data_shards.processes import Progress
from data_shards.records.manifest import read_manifest
from data_shards.records.policies import POLICIES, TextPolicy, select_sentences, word_count
from data_shards.records.study import Report
from data_shards.remote.shards import ShardFiles

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LONGEST_EXAMPLE = 100


@dataclass
class PolicyCounts:
    """Of one text policy: sentences and words of each report that it keeps."""

    sentences: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    too_few_words: int = 0
    too_long: int = 0
    sentences_cut: int = 0


def report_texts(
    shards: Path | ShardFiles, *, tokenizer: Path | None, max_tokens: int, examples: int
) -> str:
    """What the reports of `shards` hold, in lines.

    Lengths are tokens of `tokenizer` (a tokenizer.json, or a folder with one) with two marks a
    report, held against `max_tokens`, and without one words. Raises InputError for an unfinished
    folder, a damaged member, and a tokenizer that cannot be read.
    """
    files = ShardFiles.of(shards)
    manifest = read_manifest(files.manifest_folder())
    measured = _tokenizer(tokenizer) if tokenizer else None
    sections: Counter[str] = Counter()
    sentences: Counter[str] = Counter()
    shown: dict[str, list[str]] = {}
    without: list[str] = []
    empty = studies = 0
    policies = {name: PolicyCounts() for name, policy in POLICIES.items() if policy.sections}
    total = sum(entry.samples for entry in manifest.shards)
    with Progress("reading reports", total=total, unit="samples") as progress:
        for key, report in _reports(files):
            studies += 1
            empty += not report.raw.strip()
            held = {name for name, each in report.sentences.items() if each}
            sections.update(held)
            taken = {name for each in POLICIES.values() for name in each.sections_of(held)}
            if not taken and report.raw.strip() and len(without) < examples:
                without.append(f"{key}: {_short(report.raw)}")
            for name in held:
                sentences[name] += len(report.sentences[name])
                here, first = shown.setdefault(name, []), _short(report.sentences[name][0])
                # Reports repeat each other's words: an example that is there already says nothing.
                if name not in taken and len(here) < examples and first not in here:
                    here.append(first)
            for policy, counts in policies.items():
                _count(counts, report, policy, measured, max_tokens)
            progress.advance()
    lines = [f"{studies:,} studies in {files}, {empty:,} without a report"]
    for reason, count in manifest.dropped_by_reason.items():
        lines.append(f"dropped when built: {count:,} x {reason}")
    lines.append("sections with sentences (reports, sentences):")
    for name, count in sections.most_common():
        lines.append(f"  {name}: {count:,}, {sentences[name]:,}")
    unit = f"tokens (limit {max_tokens})" if measured else "words"
    lines.append(f"text policies (reports kept; sentences a report; {unit} a report):")
    lines += [_told(name, counts, measured is not None) for name, counts in policies.items()]
    left = {name: each for name, each in shown.items() if each and name not in _read_by_any()}
    if left:
        lines.append("sentences that no text policy takes, by section, with the first:")
        for name, said in sorted(left.items(), key=lambda each: -sentences[each[0]]):
            lines += [f"  {name}: {said[0]}", *(f"    {each}" for each in said[1:])]
    if without:
        lines.append("reports of which no text policy takes anything:")
        lines += [f"  {each}" for each in without]
    return "\n".join(lines)


def _reports(files: ShardFiles) -> Iterator[tuple[str, Report]]:
    for entry in shards_of(files):
        for study in studies_of(files, entry):
            yield study.record.key, study.record.report


def _count(
    counts: PolicyCounts,
    report: Report,
    policy: TextPolicy,
    tokenizer: Tokenizer | None,
    max_tokens: int,
) -> None:
    kept = select_sentences(report, policy)
    if word_count(kept) < max(POLICIES[policy].minimum_words, 1):
        counts.too_few_words += 1
        return
    counts.sentences.append(len(kept))
    if tokenizer is None:
        counts.lengths.append(word_count(kept))
        return
    # [CLS] and [SEP]; from the first sentence that does not fit the rest is dropped.
    length, cut = 2, 0
    for sentence in kept:
        length += len(tokenizer.encode(sentence, add_special_tokens=False).ids)
        cut += length > max_tokens
    counts.lengths.append(length)
    counts.too_long += cut > 0
    counts.sentences_cut += cut


def _told(name: str, counts: PolicyCounts, in_tokens: bool) -> str:
    if not counts.sentences:
        return f"  {name}: none"
    text = (
        f"  {name}: {len(counts.sentences):,} kept, {counts.too_few_words:,} with too few words; "
        f"{_spread(counts.sentences)}; {_spread(counts.lengths)}"
    )
    if in_tokens:
        text += f"; {counts.too_long:,} too long, which lose {counts.sentences_cut:,} sentences"
    return text


def _spread(values: Sequence[int]) -> str:
    ordered = sorted(values)
    at = {share: ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in (0.5, 0.95)}
    return f"median {at[0.5]}, 95 % {at[0.95]}, most {ordered[-1]}"


def _read_by_any() -> set[str]:
    return {name for policy in POLICIES.values() for name in policy.sections}


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _LONGEST_EXAMPLE else f"{plain[:_LONGEST_EXAMPLE]} ..."


def _tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file}: no such file: name a tokenizer.json, or a folder with one")
    try:
        return Tokenizer.from_file(str(file))
    # The library raises nothing more special.
    except Exception as error:
        raise InputError(f"{file}: not a tokenizer ({error}): name a tokenizer.json") from error
