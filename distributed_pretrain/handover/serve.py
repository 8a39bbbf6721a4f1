"""`serve`: a run's model behind a page of this machine, until Ctrl-C."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event

from data_shards.command_line import DONE
from data_shards.errors import InputError, warn
from data_shards.processes import ending_signals_go_to
from data_shards.profiles import parse_overrides, validate
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.handover.answers import Answers, reports_of
from distributed_pretrain.handover.load import load
from distributed_pretrain.handover.model import reading_reports
from distributed_pretrain.handover.page import import_gradio, served
from distributed_pretrain.handover.settings import ServeConfig

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


def run_serve(run_folder: Path, overrides: Sequence[str]) -> int:
    """Print the page's address, and answer there until a signal asks to end."""
    config = validate(ServeConfig, parse_overrides(overrides), where="serve")
    import_gradio()  # before what takes long
    answers = answers_of(run_folder, config)
    if config.host not in _THIS_MACHINE:
        warn(f"host={config.host}: whoever reaches this machine can ask, and read its reports")
    title = f"{run_folder.name}, {config.checkpoint}"
    ended = Event()
    with (
        ending_signals_go_to(lambda *_: ended.set()),
        served(answers, title=title, host=config.host, port=config.port) as address,
    ):
        print(f"{len(answers):,} reports to look among. Open {address}; Ctrl-C ends it", flush=True)
        ended.wait()
    return DONE


def answers_of(run_folder: Path, config: ServeConfig) -> Answers:
    """The model of a run, or of an export, with the reports of its shards.

    Raises InputError without run, checkpoint or shards, and for a method that reads no reports.
    """
    model = load(run_folder, checkpoint=config.checkpoint)
    reading_reports(model.method)
    try:
        split = ShardSplit(model.data.files(config.shards), config.split, model.data.text_policy)
        reports = reports_of(split, most=config.most_reports)
    except (InputError, BadSampleError) as error:
        raise InputError(
            f"{error}: nearest reports are those of the run's shards: put them there, or pass "
            "shards=FOLDER"
        ) from error
    return Answers(model, reports)
