#!/bin/bash

# Parameters
#SBATCH --account=radiology
#SBATCH --constraint='a100&ib'
#SBATCH --cpus-per-task=8
#SBATCH --exclude='node[03-04]'
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --job-name=lovt
#SBATCH --mail-type=FAIL
#SBATCH --mem=409600M
#SBATCH --nice=100
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output='/scratch/ann lee/runs/lovt/jobs/001-pretrain/%j_0_log.out'
#SBATCH --partition=gpu
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --signal=USR2@180
#SBATCH --time=1440
#SBATCH --wckey=submitit

# setup
module load cuda/12.4 || exit 1
module load gcc || exit 1
source /etc/profile.d/site.sh
ulimit -n 65536
export NCCL_DEBUG=INFO
export NCCL_SOCKET_IFNAME=ib0
export NCCL_IB_HCA=mlx5
export NCCL_IB_DISABLE=0
export NCCL_P2P_DISABLE=1
export GLOO_SOCKET_IFNAME=ib0
export HF_HUB_OFFLINE=1
export NOTE='two words'
export PYTHONSAFEPATH=1
export PYTHONPATH='/scratch/ann lee/runs/lovt/jobs/001-pretrain/code'"${PYTHONPATH:+:$PYTHONPATH}"

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/scratch/ann lee/runs/lovt/jobs/001-pretrain/%j_%t_log.out' --kill-on-bad-exit=1 --cpus-per-task=8 --cpu-bind=cores --mpi=none /home/ann/venv/bin/python -u -m submitit.core._submit '/scratch/ann lee/runs/lovt/jobs/001-pretrain'


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