"""Launching on a cluster: Submitit on Slurm (to come)."""
