"""Commands of the project as jobs: of a Slurm cluster, through submitit, or of this machine."""
