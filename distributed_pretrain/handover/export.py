"""`export`: what others' code can load of a run, with a card that says what it is."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from data_shards.command_line import DONE
from data_shards.errors import InputError
from data_shards.files.atomic import remedy_of, try_to_write, write_text_atomically
from data_shards.profiles import parse_overrides, validate
from distributed_pretrain.handover.card import model_card
from distributed_pretrain.handover.load import load
from distributed_pretrain.handover.settings import ExportConfig
from distributed_pretrain.run_folder.folder import RunFolder


def run_export(run_folder: Path, overrides: Sequence[str], *, to: str) -> int:
    """Write the export and its card into a folder, and say where and how it is loaded.

    Raises InputError without run or checkpoint, for an encoder that the format does not take, and
    where the folder cannot be written.
    """
    config = validate(ExportConfig, parse_overrides(overrides), where="export")
    run = RunFolder(run_folder)
    run.refuse_missing(checkpoint=config.checkpoint)
    folder = config.folder(run, to)
    card_file, is_new = folder / "README.md", not folder.exists()
    try:
        try_to_write(card_file)  # makes the folder
        model = load(run.path, checkpoint=config.checkpoint, device="cpu")
        usage = import_module(f"{__package__}.formats.{to}").write(model, folder)
        card = model_card(model, run, config.checkpoint, to=to, usage=usage)
        write_text_atomically(card_file, card)
    except InputError:
        if is_new:
            with contextlib.suppress(OSError):  # what was written into it stays
                folder.rmdir()
        raise
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}): {remedy_of(error)}, or pass "
            "output=FOLDER"
        ) from error
    print(f"written to {folder}\n\n{usage}")
    if config.push_to_hub is not None:
        print(f"\nsent to {_push(folder, config.push_to_hub)}")
    return DONE


def _push(folder: Path, repository: str) -> str:
    """The address it has then. Raises InputError where the hub refuses or cannot be reached."""
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        return str(hub.upload_folder(repo_id=repository, folder_path=folder))
    except Exception as error:  # of whatever the hub speaks HTTP with
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"push_to_hub={repository}: {reason}: check the name, log in with `hf auth login`, or "
            f"send {folder} by hand with `hf upload {repository} {folder}`"
        ) from error
