#!/bin/bash
#SBATCH --job-name=petdos-ipi
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
# One i-PI and its clients on one node. Five minutes before the end of the job the queue sends SIGTERM, and i-PI ends softly, with a RESTART; so it does
# by itself after <total_time>, in seconds, in the input. Submit the script again, or let it be requeued, to go on.
set -euo pipefail

INPUT=${INPUT:-input.xml}
MODEL=${MODEL:-almgsi-lda}
CLIENTS=${CLIENTS:-4}
# For example: CLIENT="i-pi-driver-py -u -a ADDRESS -m custom -P $(petdos ipi --drivers)/petdos_potential.py -o model=almgsi-lda,template=Al.xyz"
[ "$CLIENTS" -eq 0 ] || : "${CLIENT:?give the command of a client, as docs/ipi.md has it under Forces, or CLIENTS=0 if the input has no <ffsocket>}"

export OMP_NUM_THREADS=$((${SLURM_CPUS_PER_TASK:-1} > CLIENTS && CLIENTS > 0 ? SLURM_CPUS_PER_TASK / CLIENTS : 1))
start=$INPUT
# The newest whole state: a RESTART or checkpoint that was cut off lacks its last line.
for file in RESTART *checkpoint*; do
    if [ -f "$file" ] && tail -n 1 "$file" | grep -q '</simulation>' && { [ "$start" = "$INPUT" ] || [ "$file" -nt "$start" ]; }; then
        start=$file
    fi
done
# A server that was killed leaves its sockets, where the next one could not open its own.
sed -n 's:.*<address> *\([^ <]*\) *</address>.*:\1:p' "$start" | while read -r address; do
    rm -f "/tmp/ipi_$address"
done
petdos ipi "$start" --dos "$MODEL" --every "${EVERY:-50}" -o run.zarr &
server=$!
trap 'kill -TERM "$server"' INT TERM
# A client needs the socket, which the server opens after a while: try until it is there, or the server has ended.
client() {
    # shellcheck disable=SC2086  # a command of several words
    until $CLIENT >>client.log 2>&1; do
        kill -0 "$server" 2>/dev/null || return 0
        sleep 1
    done
}
for ((i = 0; i < CLIENTS; i++)); do
    client &
done
# A signal ends a wait, not the server.
status=0
while kill -0 "$server" 2>/dev/null; do
    status=0
    wait "$server" || status=$?
done
exit "$status"
