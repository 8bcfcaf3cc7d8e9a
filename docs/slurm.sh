#!/bin/bash
# A search on the nodes of a Slurm job: Ray starts on each of them, and the first one runs the search.
#
#   sbatch docs/slurm.sh                        # in the checkout, after `make setup` on a file system that all nodes see
#
# If the job reaches its time limit, the search stops as after Ctrl-C; submit the script again and the search resumes.
#SBATCH --job-name=twinhead
#SBATCH --nodes=2                               # CHANGE
#SBATCH --gpus-per-node=4                       # CHANGE
#SBATCH --cpus-per-task=32                      # CHANGE: all cores of a node
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00                         # CHANGE
#SBATCH --signal=B:INT@120                      # Ctrl-C two minutes before the limit

set -euo pipefail
NAME=${NAME:-first}                             # CHANGE, or: NAME=second sbatch docs/slurm.sh
DATA=${DATA:-/shared/data/set}                  # CHANGE
STORAGE=${STORAGE:-/shared/searches}            # CHANGE

# Every node reads the same token from the home directory, which Slurm nodes share; without one nothing answers.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 OMP_WAIT_POLICY=PASSIVE
export PATH=$PWD/.venv/bin:$PATH                # where `ray symmetric-run` looks for `ray`
.venv/bin/ray get-auth-token --generate > /dev/null
chmod 600 "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"

if [ -d "$STORAGE/$NAME" ]; then
  search=(.venv/bin/twinhead search --resume "$NAME" --storage "$STORAGE")
else
  search=(.venv/bin/twinhead search --data "$DATA" --name "$NAME" --storage "$STORAGE")
fi
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(getent ahostsv4 "$head" | awk 'NR == 1 {print $1}'):6379
export RAY_ADDRESS=$address
pid=$(mktemp)
trap 'kill -INT "$(cat "$pid")"' INT            # the search alone: symmetric-run, on Ctrl-C, kills it after 0.25 s
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" .venv/bin/ray symmetric-run --address "$address" \
  --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus "$SLURM_CPUS_PER_TASK" \
  -- sh -c 'echo $$ > "$0"; exec "$@"' "$pid" "${search[@]}" &
wait $! || wait $!
