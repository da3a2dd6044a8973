#!/bin/bash
#SBATCH --job-name=petdos-ipi
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
# One i-PI and its clients on one node. <total_time> in the input, in seconds, lets i-PI end by itself before the job does.
set -euo pipefail

INPUT=${INPUT:-input.xml}
MODEL=${MODEL:-almgsi-lda}
CLIENTS=${CLIENTS:-4}

export OMP_NUM_THREADS=$((${SLURM_CPUS_PER_TASK:-1} > CLIENTS ? SLURM_CPUS_PER_TASK / CLIENTS : 1))
start=$INPUT
# The newest whole state: a RESTART that was cut off lacks its last line.
if [ -f RESTART ] && tail -n 1 RESTART | grep -q '</simulation>'; then
    start=RESTART
fi
petdos ipi "$start" --dos "$MODEL" --every "${EVERY:-50}" -o run.zarr &
server=$!
trap 'kill -TERM "$server"' INT TERM  # i-PI then ends softly, with a RESTART
clients=()
for ((i = 0; i < CLIENTS; i++)); do
    # shellcheck disable=SC2086  # a command of several words, as in the README of examples/ipi
    ${CLIENT:?give the command of a client, as examples/ipi/README.md has it} &
    clients+=("$!")
done
wait "$server"
kill "${clients[@]}" 2>/dev/null || true
