#!/usr/bin/env bash
# One night on a Slurm cluster: an array task for each folder of tables, with one study folder that
# all share. A task that is requeued goes on where it was. With --gres=gpu:4 four GPUs share its tables.
#
#   sbatch --constraint=h100 --array=0-2 slurm_array.sh /shared/state /shared/tables/{a,b,c}
#
#SBATCH --job-name=mla-tune-retune
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=mla-tune-retune-%A_%a.log
set -euo pipefail

state=${1:?the study folder that all tasks share}
shift
folders=("$@")
folder=${folders[${SLURM_ARRAY_TASK_ID:?run by sbatch --array}]:?more tasks than folders}

code=0
srun mla-tune retune "$folder" --study-dir "$state" --devices all --wait \
    --budget-gpu-minutes "$((220 * ${SLURM_GPUS_ON_NODE:-1}))" || code=$?
# To Slurm every code but 0 is a failure; 10 says that tables changed.
if [ "$code" -eq 10 ]; then
    echo "$folder: tables changed"
    exit 0
fi
exit "$code"
