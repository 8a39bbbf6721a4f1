#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=1
#SBATCH --gpus-per-node=8
#SBATCH --job-name=lovt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output='/scratch/ann lee/runs/lovt/jobs/001-pretrain/%j_0_log.out'
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=60
#SBATCH --wckey=submitit

# setup
export NCCL_DEBUG=WARN
export PYTHONSAFEPATH=1
export PYTHONPATH='/scratch/ann lee/runs/lovt/jobs/001-pretrain/code'"${PYTHONPATH:+:$PYTHONPATH}"

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/scratch/ann lee/runs/lovt/jobs/001-pretrain/%j_%t_log.out' --kill-on-bad-exit=1 --cpus-per-task=1 --container-image=/images/train.sqsh '--container-mounts=/home/ann/work:/home/ann/work,/scratch/ann lee/runs/lovt:/scratch/ann lee/runs/lovt,/data:/data' --container-workdir=/home/ann/work python -u -m submitit.core._submit '/scratch/ann lee/runs/lovt/jobs/001-pretrain'


# teardown
status=$?
tried() { for _ in 1 2 3 4 5 6; do "$@" && return; sleep 10; done; return 1; }
if [ -e '/scratch/ann lee/runs/lovt/jobs/001-pretrain'/requeue-"$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" ]; then
  state=$(tried squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) || state=unknown
  if [ "$state" = RUNNING ]; then
    mv '/scratch/ann lee/runs/lovt/jobs/001-pretrain'/requeue-"$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" '/scratch/ann lee/runs/lovt/jobs/001-pretrain'/requeued-"$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"
    tried scontrol requeue "$SLURM_JOB_ID" || state=unknown
  fi
  if [ "$state" = unknown ]; then
    echo "saved, but Slurm did not answer: not requeued, submit it again" >&2
    status=75
  fi
fi
exit $status