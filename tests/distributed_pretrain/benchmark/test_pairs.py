"""The command end to end at small sizes, and the memory that the forms promise. Never a time."""

from __future__ import annotations

import json
import sys

import pytest

from distributed_pretrain.__main__ import main
from distributed_pretrain.alignment.pairwise import products as pair_products
from distributed_pretrain.benchmark import pairs
from distributed_pretrain.benchmark.pair_forms import (
    FORMS,
    Form,
    PairBenchmarkConfig,
    form_gflops,
    report_lengths,
)

SMALL = ("batch_size=3", "big_batch=4", "regions=9", "words=5", "shortest_report=2", "dim=8")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux's /proc")


@on_linux
@pytest.mark.parametrize("method", ["limitr", "gloria"])
@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_every_form_that_this_cpu_can_run_has_a_row_and_its_verdicts(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    has_bfloat16: bool,
) -> None:
    for module in (pairs, pair_products):
        monkeypatch.setattr(module, "cpu_multiplies_bfloat16", lambda: has_bfloat16)
    # A product of that size takes seconds without the instructions.
    monkeypatch.setattr(pairs, "RATE_MATRIX", 64)
    command = ["benchmark", "loss", "--method", method, *SMALL, "repeats=1", "threads=1"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    report = json.loads(printed.splitlines()[-1])
    all_forms = FORMS["limitr" if method == "limitr" else "gloria"]
    forms = [form for form in all_forms if has_bfloat16 or form.precision == "float32"]
    assert [row["form"]["name"] for row in report["rows"]] == [form.name for form in forms]
    assert all(row["seconds"][0] > 0 for row in report["rows"])
    targets = sum(form.target_time_ratio is not None for form in forms)
    assert len(report["big_batch_peak_bytes"]) == targets
    assert printed.count("GiB at batch 4") == targets
    in_bfloat16 = {form.title for form in all_forms if form.precision == "bfloat16"}
    assert printed.count("gradient off float32 by") == len(in_bfloat16)
    assert ("only the roundings are measured" in printed) != has_bfloat16
    roundings = report["roundings_of_unmeasured_forms"]
    assert roundings.keys() == (set() if has_bfloat16 else in_bfloat16)
    # Rounded, and so neither equal nor far off.
    assert all(0 < gradient_error < 0.1 for _, gradient_error in roundings.values())


def test_the_method_belongs_to_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "loader", "--method", "limitr"]) == 2
    assert "--method belongs to `benchmark loss`" in capsys.readouterr().err


def test_a_bad_setting_and_an_unknown_option_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["benchmark", "loss", "--method", "gloria", "region=3"]) == 2
    assert "did you mean 'regions'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["benchmark", "loss", "--methods", "gloria"])
    assert "unrecognized arguments" in capsys.readouterr().err


def test_reports_of_real_lengths_reach_from_the_shortest_to_all_words() -> None:
    config = PairBenchmarkConfig()
    lengths = report_lengths(Form("paper", "float32", padded=True), config, 17)
    assert [lengths.min().item(), lengths.max().item()] == [config.shortest_report, config.words]
    assert lengths.unique().numel() == 17
    assert not lengths.equal(lengths.sort().values)


def test_a_pair_of_the_paper_takes_12_products_and_of_the_loop_what_the_spec_says() -> None:
    config = PairBenchmarkConfig(batch_size=1)
    product = 2 * 361 * 97 * 768 / 1e9
    paper = form_gflops("limitr", Form("paper", "float32"), config)
    assert paper == pytest.approx(12 * product)
    loop = form_gflops("limitr", Form("loop", "float32"), config)
    assert loop / 3 == pytest.approx(0.75, rel=0.02)
