"""The tokenizer in a run's folder: as the run began with it, or refused; and no code of its own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_shards.errors import InputError
from distributed_pretrain.__main__ import main
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.foreign_code import refuse_code
from tests.tiny import short_run as short

pytestmark = pytest.mark.xdist_group("short_run")

EVIL = "from pathlib import Path\nPath('{mark}').touch()\nclass Evil: pass\n"


def cut(tokenizer: Path) -> None:
    path = tokenizer / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:100])


def flip_a_bit(tokenizer: Path) -> None:
    path = tokenizer / "tokenizer.json"
    content = bytearray(path.read_bytes())
    word = re.search(rb'"[a-z]{3,}": \d', content)
    assert word is not None
    content[word.start() + 1] ^= 0x20  # the first letter is a capital
    path.write_bytes(content)


def swap_two_numbers(tokenizer: Path) -> None:
    path = tokenizer / "tokenizer.json"
    document = json.loads(path.read_text())
    words = document["model"]["vocab"]
    first, second = list(words)[-2:]
    words[first], words[second] = words[second], words[first]
    path.write_text(json.dumps(document))


def add_a_file(tokenizer: Path) -> None:
    (tokenizer / "special_tokens_map.json").write_text('{"cls_token": "[PAD]"}')


def lose_a_file(tokenizer: Path) -> None:
    (tokenizer / "tokenizer_config.json").unlink()


DAMAGE: dict[Callable[[Path], None], str] = {
    cut: "tokenizer.json: damaged",
    flip_a_bit: "tokenizer.json: damaged",
    swap_two_numbers: "tokenizer.json: damaged",
    add_a_file: "special_tokens_map.json: not of this tokenizer",
    lose_a_file: "tokenizer_config.json: missing",
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.items())
def test_a_damaged_tokenizer_is_refused_and_made_again_where_it_is_deleted(
    damage: Callable[[Path], None],
    said: str,
    short_run: Path,
    tiny_profile: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = short.cut_back(short_run, tmp_path / "run")
    damage(run / "tokenizer")
    assert main(["evaluate", str(run), "checkpoint=untrained", "split=validate"]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert short.train(tiny_profile, run) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert said in last
    assert "delete the folder" in last
    assert "hf download" not in last
    if damage is cut:
        shutil.rmtree(run / "tokenizer")
        assert short.train(tiny_profile, run) == 0
        assert "tokenizer: was missing, and is made again" in capsys.readouterr().err
        assert short.same_weights(run, short_run)


def test_a_tokenizer_that_cannot_be_made_again_as_it_was_is_refused(
    short_run: Path, tiny_profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = short.cut_back(short_run, tmp_path / "run")
    digest = json.loads((run / "identity.json").read_text())["tokenizer"]["tokenizer.json"]
    for path in (run / "identity.json", *run.glob("checkpoints/step_*/state.json")):
        short.rewrite(path, lambda old: old.replace(digest.encode(), b"0" * 64))
    shutil.rmtree(run / "tokenizer")
    assert short.train(tiny_profile, run) == 2
    assert "is not what the run began with" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("earlier_release", [True, False])
def test_code_beside_a_tokenizer_is_never_run(
    earlier_release: bool,
    short_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(short_run, tmp_path / "run", symlinks=True)
    config = run / "tokenizer" / "tokenizer_config.json"
    map_of_classes = {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}}
    config.write_text(json.dumps(json.loads(config.read_text()) | map_of_classes))
    (run / "tokenizer" / "evil.py").write_text(EVIL.format(mark=tmp_path / "ran"))
    if earlier_release:  # which wrote no checksums
        (run / "identity.json").unlink()
        for state in run.glob("checkpoints/step_*/state.json"):
            short.rewrite(
                state, lambda old: json.dumps(json.loads(old) | {"identity": {}}).encode()
            )
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    assert main(["evaluate", str(run), "split=validate"]) == 2
    assert "tokenizer" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "ran").exists()


def test_a_folder_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "auto_map": {}}')
    with pytest.raises(InputError, match=r"config\.json: names code of its own \(auto_map\)"):
        refuse_code(tmp_path)
    with pytest.raises(InputError, match="names code of its own"):
        SentenceTokenizer.load(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    refuse_code(tmp_path)
    refuse_code("a/name-on-the-hub")


def change_numbers(tokenizer: Path, change: Callable[[int], int]) -> None:
    path = tokenizer / "tokenizer.json"
    document = json.loads(path.read_text())
    words = document["model"]["vocab"]
    document["model"]["vocab"] = {word: change(number) for word, number in words.items()}
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("change", [lambda n: n * 10**7, lambda n: n // 2])
def test_numbers_that_are_not_each_tokens_are_refused(
    change: Callable[[int], int], short_run: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(short_run / "tokenizer", tmp_path / "tokenizer")
    change_numbers(folder, change)
    with pytest.raises(InputError, match=r"vocabulary is damaged|cannot be read"):
        SentenceTokenizer.load(folder)
