"""Facts that once had several homes, and the one file that each has now."""

from __future__ import annotations

import re

import pytest

from distributed_pretrain.commands import COMMANDS
from tests.paths import ROOT

PACKAGES = ("data_shards", "distributed_pretrain", "launch")
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text()
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
# What a line of code would have to say to know the fact by itself. Quotes tell code from prose.
HOMES = {
    "the names of files in a run folder": (
        r'"(config\.yaml|identity\.json|metrics\.jsonl|starts\.jsonl|quarantine\.jsonl|skipped\.jsonl|lock)"'
        r'|path / "(checkpoints|tensorboard|tokenizer)"|"evaluation_',
        {"distributed_pretrain/run_folder/folder.py"},
    ),
    "the names of checkpoints": (
        r'(/|=|\() ?"(best|last)"|checkpoint.*"untrained"|f"step_',
        {"distributed_pretrain/run_folder/step_folders.py"},
    ),
    "what a launcher calls ranks": (
        r"""environ.*["'](RANK|WORLD_SIZE|LOCAL_RANK)\b""",
        set(),
    ),
    "the file lock": (r"^import fcntl", {"data_shards/files/lock.py"}),
    "files and folders that appear whole": (
        # One argument: `replace` of texts takes two, and of dataclasses names.
        r"os\.(fsync|fdatasync|replace|rename|link|symlink)\b|\.rename\(|"
        r"[a-z_]\.replace\([^,=\n]*\)$|shutil\.move",
        {"data_shards/files/atomic.py"},
    ),
    "JSON lines of several ranks": (r"\.stem\}-", {"data_shards/files/json_lines.py"}),
    "the number of cores": (r"cpu_count|sched_getaffinity", {"data_shards/processes.py"}),
    "the signals that ask to end": (r"signal\.SIGUSR2", {"data_shards/starting.py"}),
    "the exit status to start again by": (r"= 75\b", {"data_shards/starting.py"}),
    "exit statuses in numbers": (r"sys\.exit\(\d|SystemExit\(\d", set()),
    "command lines with overrides": (
        r"ArgumentParser\(|parse_known_args|parse_args\(",
        {"data_shards/command_line.py"},
    ),
    "the starting of many runs": (
        r"subprocess\.Popen\(",
        {"distributed_pretrain/experiments/grid/pool.py", "launch/rank.py"},
    ),
    "intervals over runs": (
        r"\bstdev\b|1\.96 \*",
        {"distributed_pretrain/experiments/estimates.py"},
    ),
    "the titles of recalls": (r'"R@', {"distributed_pretrain/measures/retrieval.py"}),
    "which way is better": (r"\bself\.better ==", {"distributed_pretrain/measures/metric.py"}),
    # Hosts differ in it: whatever is decided by it would go wrong on several.
    "the wall clock": (
        r"\btime\.time\(|datetime\.now|st_mtime",
        {
            # Which file was used longest ago.
            "data_shards/remote/cache.py",
            "distributed_pretrain/run_folder/folder.py",
            # TensorBoard's own field.
            "distributed_pretrain/training/events.py",
            "launch/records.py",
            "launch/submit.py",
        },
    ),
    "all of torch.distributed": (
        r"^\s*(from|import) torch\.distributed|^from torch import distributed",
        {"distributed_pretrain/ranks.py"},
    ),
    "a warning on stderr": (r"""print\(\s*f?"warning""", {"data_shards/errors.py"}),
    "JSON of others": (r"parse_float=", {"data_shards/sources/formats/json_values.py"}),
    "reading JSON": (
        r"json\.loads?\(",
        {
            "data_shards/files/regular.py",
            "data_shards/sources/formats/json_values.py",
            # Its own words, and what another rank has just written.
            "data_shards/phantom/archive.py",
            "launch/rank.py",
        },
    ),
    "hand-made SVG": (r"<(rect|path|svg) ", set()),
}


@pytest.mark.parametrize("fact", HOMES)
def test_a_fact_has_one_home(fact: str) -> None:
    pattern, homes = HOMES[fact]
    knows = {name for name, text in SOURCES.items() if re.search(pattern, text, re.MULTILINE)}
    assert knows == homes


def test_the_launcher_names_no_verb() -> None:
    verbs = "|".join(command.name for command in COMMANDS)
    named = {
        name: found
        for name, text in SOURCES.items()
        if name.startswith("launch/") and (found := re.findall(rf'"(?:{verbs})"', text))
    }
    assert named == {}


def test_only_the_measure_knows_what_its_metrics_are_called() -> None:
    """A name in quotes, other than in its measure, would have to be changed with it."""
    names = (
        r'"(recall_at_\d+|recall_sum|grounding_\w+|linear_dice|linear_auroc|auroc'
        r'|dice|dice_per_image|map|map_(coco|50|75|positive)|froc|froc_authors)"'
    )
    knows = {
        name
        for name, text in SOURCES.items()
        if re.search(names, text) and not name.startswith("distributed_pretrain/measures/")
    }
    assert knows == set()


def test_files_stay_short() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in (*PACKAGES, "tests")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := path.read_text().count("\n")) > 300
    }
    assert long == {}
