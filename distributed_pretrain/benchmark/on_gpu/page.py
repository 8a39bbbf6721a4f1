"""The results as a file of JSON and a page, written anew whenever a part has ended."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_shards.files.atomic import write_text_atomically
from distributed_pretrain.benchmark.harness import Target
from distributed_pretrain.benchmark.on_gpu.parts import Part, Result

JSON_NAME, PAGE_NAME = "gpu.json", "gpu.md"
NOT_RUN = "not yet run"

_A100, _H100 = r"\bA100\b", r"\bH[12]00\b"


@dataclass(frozen=True)
class Asked:
    """What is asked of a figure of some parts: on every card, or on those of a name."""

    figure: str
    limit: float
    at_least: bool = False
    card: str = ""


_LOVT = (
    Asked("pairs_per_second", 1000, at_least=True, card=_A100),
    Asked("pairs_per_second", 2000, at_least=True, card=_H100),
)
# By part; those of "profiles" are of every profile.
PROFILES = "profiles"
ASKED: dict[str, tuple[Asked, ...]] = {
    PROFILES: (
        Asked("rate_to_bare_loop", 0.97, at_least=True),
        Asked("data_wait_share", 0.03),
    ),
    "lovt_a100": _LOVT,
    "lovt_a100_80gb": _LOVT,
    "lovt_a100_77": (Asked("pairs_per_second", 1300, at_least=True, card=_A100),),
    "pairs": (
        Asked("limitr_paper_to_loop", 1 / 7),
        Asked("limitr_authors_to_loop", 0.4),
        Asked("gloria_gloria_to_loop", 0.3),
    ),
    "global_loss": (Asked("32k_chunked_to_plain", 1.5),),
    "regions": (Asked("chunked_to_plain", 1.2),),
    "checkpoint": (Asked("background_ratio", 1.2),),
}


def asked_of(part: str, card: str) -> dict[str, Asked]:
    """What is asked of a part's figures on this card, by figure."""
    every = ASKED.get(part, ()) + (ASKED[PROFILES] if "a100" in part else ())
    return {each.figure: each for each in every if re.search(each.card, card)}


def targets_of(results: Mapping[str, Result], card: str | None) -> list[Target]:
    """Every figure of which something is asked; none where `card` is None: no GPU, or tiny."""
    if card is None:
        return []
    found = []
    for part, result in results.items():
        every = asked_of(part, card)
        for figure, value in result.figures.items():
            if (asked := every.get(figure)) is not None:
                found.append(Target(f"{part}: {figure}", value, asked.limit, asked.at_least))
    return found


def missing_of(results: Mapping[str, Result], card: str | None) -> list[str]:
    """The figures of which something is asked and that a part did not come to, one a line."""
    if card is None:
        return []
    return [
        f"{part}: {figure}: not measured ({result.error or 'not reported'}): MISSED"
        for part, result in results.items()
        for figure in asked_of(part, card)
        if figure not in result.figures
    ]


def write(
    folder: Path,
    parts: Mapping[str, Part],
    results: Mapping[str, Result],
    *,
    facts: Mapping[str, str],
    card: str | None,
) -> None:
    """Write both files; of parts without a figure they say so."""
    plain = {name: vars(result) for name, result in results.items()}
    text = json.dumps({"facts": dict(facts), "parts": plain}, indent=1)
    write_text_atomically(folder / JSON_NAME, text + "\n")
    write_text_atomically(folder / PAGE_NAME, page(parts, results, facts=facts, card=card))


def page(
    parts: Mapping[str, Part],
    results: Mapping[str, Result],
    *,
    facts: Mapping[str, str],
    card: str | None,
) -> str:
    """The page as Markdown."""
    lines = ["# benchmark gpu", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    if card is None:
        lines += ["- sizes or the device are not those of the targets: nothing is judged"]
    for name, part in parts.items():
        result = results.get(name, Result())
        lines += ["", f"## {name}", "", f"{part.title}. At most {part.seconds:.0f} s.", ""]
        if result.error is not None:
            lines += [f"Ended after {result.seconds:.0f} s: {result.error}", ""]
        missing = missing_of({name: result}, card) if name in results else []
        lines += [*(f"- {each}" for each in missing), ""] if missing else []
        if not result.figures:
            lines += [NOT_RUN]
            continue
        lines += ["| figure | value | asked | |", "|---|---|---|---|"]
        targets = {each.name: each for each in targets_of({name: result}, card)}
        for figure, value in result.figures.items():
            target = targets.get(f"{name}: {figure}")
            bound = "" if target is None else target.bound
            verdict = "" if target is None else ("met" if target.is_reached else "NOT MET")
            lines += [f"| {figure} | {value:.4g} | {bound} | {verdict} |"]
    return "\n".join(lines) + "\n"
