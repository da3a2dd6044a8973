#!/bin/bash
#SBATCH --job-name=petdos-analyze
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=00:30:00
# After an array: sbatch --dependency=afterok:JOBID analyze.sh T*.zarr
set -euo pipefail

OUT=${OUT:-results}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# One trace in few files, for the archive; the parts may be removed then.
[ -e all.zarr ] || petdos merge all.zarr "$@"
petdos analyze all.zarr --burn-in auto -o "$OUT" --format png,pdf
