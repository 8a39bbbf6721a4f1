"""The page of `serve`, in Gradio: an X-ray and a phrase in, a heat map and reports out.

What is dropped on it is deleted from disk as soon as it is read, and pictures travel inside the
answer: no file of either is left. Nothing is asked of another machine.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from markupsafe import Markup
from numpy import ndarray

from data_shards.errors import InputError
from distributed_pretrain.handover.answers import Answer, Answers
from distributed_pretrain.measures.pictures import data_url

# Of an X-ray in memory, of which the browser did not say that its page was closed.
_FORGOTTEN_SECONDS = 3600
_LARGEST_FILE = "256mb"
_STYLE = """
.gradio-container { max-width: 70rem !important; margin: 0 auto !important; }
#answer, #answer > * { padding: 0 !important; }
.answer { --soft: color-mix(in srgb, var(--body-text-color) 72%, transparent);
  font-variant-numeric: tabular-nums; }
.answer p, .answer h2 { margin: 0; color: var(--body-text-color); }
.answer h2 { font-size: 1.05rem; font-weight: 600; margin: 1.5rem 0 0.4rem; }
.answer .pictures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); }
.answer figure { margin: 0; min-width: 0; }
.answer img { display: block; width: 100%; max-height: 30rem; object-fit: contain;
  background: #000; border-radius: 6px; }
.answer figcaption, .answer .note { font-size: 0.9rem; line-height: 1.45; margin-top: 0.4rem;
  color: var(--soft); overflow-wrap: anywhere; }
.answer ol { list-style: none; margin: 0.5rem 0 0; padding: 0; }
.answer li { display: grid; grid-template-columns: 3.2rem 1fr; gap: 0.8rem; padding: 0.6rem 0;
  border-top: 1px solid var(--border-color-primary); color: var(--body-text-color);
  overflow-wrap: anywhere; }
.answer li b { font-weight: 600; }
.answer li small { display: block; color: var(--soft); }
.answer .wrong { padding: 0.7rem 0.9rem; border-left: 3px solid #c0392b;
  background: color-mix(in srgb, #c0392b 12%, transparent); overflow-wrap: anywhere; }
.empty { border: 1px dashed var(--border-color-primary); border-radius: 6px; padding: 3rem 1.5rem;
  text-align: center; }
"""


def import_gradio() -> Any:
    """Gradio, told to call nobody. Raises InputError where it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise InputError("serve: Gradio is not installed: `pip install 'radalign[serve]'`") from (
            error
        )
    return gradio


@contextlib.contextmanager
def served(answers: Answers, *, title: str, host: str, port: int) -> Iterator[str]:
    """The page's address while it is open. Raises InputError where it cannot be opened there."""
    gradio = import_gradio()
    with (
        tempfile.TemporaryDirectory(prefix="radalign_serve_") as folder,
        contextlib.ExitStack() as end,
    ):
        os.environ["GRADIO_TEMP_DIR"] = folder
        end.callback(os.environ.pop, "GRADIO_TEMP_DIR")
        page = _page(gradio, answers, title)
        try:
            page.launch(
                server_name=host,
                server_port=port or _free_port(host),
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                show_error=False,
                footer_links=[],
                max_file_size=_LARGEST_FILE,
                ssr_mode=False,
                enable_monitoring=False,
                theme=gradio.themes.Base(font=["system-ui", "sans-serif"]),
                css=_STYLE,
            )
        except OSError as error:
            raise InputError(
                f"host={host} port={port}: cannot be opened ({error}): check the host, and pass "
                "port=0 for any that is free"
            ) from error
        end.callback(page.close, verbose=False)
        yield page.local_url


def _free_port(host: str) -> int:
    """One that nobody listens at; Gradio takes 0 at its word."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as found:
        found.bind((host, 0))
        return int(found.getsockname()[1])


def _page(gradio: Any, answers: Answers, title: str) -> Any:
    def dropped(path: str, phrase: str) -> tuple[object, None, str]:
        """The X-ray for this visitor's memory, an empty place for the next, and the answer."""
        try:
            x_ray = answers.read(path)
        except InputError as error:
            return None, None, _wrong(str(error).replace(path, Path(path).name))
        finally:
            Path(path).unlink(missing_ok=True)
        return x_ray, None, asked(x_ray, phrase)

    def asked(x_ray: UInt8[ndarray, "height width"] | None, phrase: str) -> str:
        if x_ray is None:
            return _EMPTY
        try:
            return shown(answers.answer(x_ray, phrase.strip()), phrase.strip(), len(answers))
        except InputError as error:
            return _wrong(str(error))

    with gradio.Blocks(title=f"radalign: {title}", analytics_enabled=False) as page:
        gradio.Markdown(
            f"## A phrase on an X-ray\n`{title}`. For research, no medical device: a heat map says "
            "where an embedding fits a phrase. Images stay on this server, in memory, for an hour "
            "at most."
        )
        x_ray = gradio.State(None, time_to_live=_FORGOTTEN_SECONDS)
        with gradio.Row(equal_height=True):
            file = gradio.File(label="X-ray: JPEG, PNG, TIFF, BMP or DICOM", height=150, scale=2)
            with gradio.Column(scale=3):
                phrase = gradio.Textbox(
                    label="Phrase", placeholder="small left pleural effusion", max_lines=1
                )
                button = gradio.Button("Find", variant="primary")
        answer = gradio.HTML(_EMPTY, elem_id="answer")
        private = {"api_visibility": "private", "show_progress": "minimal"}
        file.upload(dropped, [file, phrase], [x_ray, file, answer], **private)
        for event in (phrase.submit, button.click):
            event(asked, [x_ray, phrase], answer, **private)
    return page


_EMPTY = '<div class="answer"><p class="empty">Drop an X-ray, then say what to look for.</p></div>'


def _wrong(line: str) -> str:
    return Markup('<div class="answer"><p class="wrong" role="alert">{}</p></div>').format(line)


def shown(answer: Answer, phrase: str, known: int) -> str:
    """An answer as HTML, whatever texts are in it; `known` reports were compared."""
    figure = Markup('<figure><img src="{}" alt="{}"><figcaption>{}</figcaption></figure>').format
    height, width = answer.x_ray.shape
    seen = f"As the model's shards would hold it, {width} \N{MULTIPLICATION SIGN} {height} px"
    pictures = figure(data_url(answer.x_ray), "The X-ray", seen)
    if answer.heat is not None:
        low, high = map(_number, (answer.low, answer.high))
        scale = f"“{phrase}”: from {low} (no heat) to {high} (bright), on a scale of its own"
        pictures += figure(data_url(answer.heat), f"The X-ray under the heat of: {phrase}", scale)
    rows = Markup("").join(
        Markup("<li><b>{}</b><span>{}{}</span></li>").format(
            _number(each.similarity),
            each.text,
            Markup("<small>of {} studies</small>").format(each.studies) if each.studies > 1 else "",
        )
        for each in answer.nearest
    )
    return Markup(
        '<div class="answer"><div class="pictures">{}</div><h2>Nearest reports</h2>'
        '<p class="note">Of {:,} distinct ones, with their similarity to the X-ray; the phrase '
        "plays no part.</p><ol>{}</ol></div>"
    ).format(pictures, known, rows)


def _number(similarity: float) -> str:
    return f"{similarity:.2f}".replace("-", "\N{MINUS SIGN}")
