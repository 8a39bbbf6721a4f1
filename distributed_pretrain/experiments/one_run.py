"""One run of a comparison, in a process of its own: pre-train, evaluate, write the figures down.

python -m distributed_pretrain.experiments.one_run JOB.json
"""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path

import torch

from data_shards.command_line import DONE, GOES_ON, guarded
from data_shards.files.atomic import write_text_atomically
from distributed_pretrain.evaluation.evaluate import evaluate_run
from distributed_pretrain.experiments.results import RunResult, fingerprint
from distributed_pretrain.experiments.settings import RunJob
from distributed_pretrain.measures.region_similarity import RegionSimilarity
from distributed_pretrain.pretrain.build import pretrain
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.progress import read_progress


def main(path: Path) -> int:
    """The exit status: 0 done, 1 not finite, 2 bad input, 75 interrupted (start it again)."""
    return guarded(lambda: _run(RunJob.model_validate_json(path.read_bytes())))


def _run(job: RunJob) -> int:
    if not pretrain(job.pretrain):
        return GOES_ON
    pretrain_cpu_seconds = time.process_time()
    evaluation = evaluate_run(job.folder, job.evaluate, more=(RegionSimilarity,))
    trained = read_progress(RunFolder(job.folder))
    gpu = torch.cuda.is_available()
    result = RunResult(
        job=fingerprint(job),
        method=job.method,
        seed=job.seed,
        metrics=evaluation.metrics,
        region_similarity=evaluation.of(RegionSimilarity).by_distance,
        steps=trained.step if trained is not None else 0,
        global_batch=job.pretrain.data.global_batch,
        image_size_px=job.pretrain.data.image_size_px,
        pretrain_cpu_seconds=pretrain_cpu_seconds,
        evaluate_cpu_seconds=time.process_time() - pretrain_cpu_seconds,
        machine=torch.cuda.get_device_name() if gpu else f"CPU ({platform.machine()})",
    )
    write_text_atomically(job.result, result.model_dump_json(indent=1) + "\n")
    return DONE


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
