#!/bin/bash
#SBATCH --job-name=petdos-lammps
#SBATCH --array=0-3
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --requeue
# One temperature for each task of the array, each on several ranks. The deck writes restart.a and restart.b in turn; the newest whole one is
# gone on from, and samples after it are taken again.
set -euo pipefail

TEMPERATURES=(300 600 900 1200)
DECK=${DECK:-$PWD/in.lammps}
LAMMPS=${LAMMPS:-lmp}
LAUNCH=${LAUNCH-mpirun -n ${SLURM_NTASKS:-1}}

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
temperature=${TEMPERATURES[${SLURM_ARRAY_TASK_ID:-0}]}
mkdir -p "T$temperature"
cd "T$temperature"

start=none
for file in restart.a restart.b; do
    # A file that was cut off by the end of a job lacks this word at its end.
    if [ -s "$file" ] && tail -c 16 "$file" | grep -aq 'LammpS RestartT' && { [ "$start" = none ] || [ "$file" -nt "$start" ]; }; then
        start=$file
    fi
done
fresh=$([ "$start" = none ] && echo 1 || echo 0)
# shellcheck disable=SC2086  # a command of several words
$LAUNCH "$LAMMPS" -in "$DECK" -var T "$temperature" -var fresh "$fresh" -var start "$start" -var steps "${STEPS:-20000}"
