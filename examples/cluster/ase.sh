#!/bin/bash
#SBATCH --job-name=petdos-md
#SBATCH --array=0-3
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --requeue
# One temperature for each task of the array. A task that runs out of time, or is requeued, goes on where it was: submit it again.
set -euo pipefail

TEMPERATURES=(300 600 900 1200)
STRUCTURE=${STRUCTURE:-Al.xyz}
MODEL=${MODEL:-almgsi-lda}
STEPS=${STEPS:-20000}

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
temperature=${TEMPERATURES[${SLURM_ARRAY_TASK_ID:-0}]}

# The queue may kill it at any moment: --resume goes on from the newest checkpoint, with the same result.
exec petdos md "$STRUCTURE" --potential "$MODEL" --dos "$MODEL" --temperature "$temperature" --steps "$STEPS" --every 10 \
    --seed "${SEED:-1}" -o "T$temperature.zarr" --resume
