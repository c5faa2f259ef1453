#!/bin/bash
# sbatch configs/accelerate/slurm.sh configs/k400_stvit.yaml data.root=/data/k400
#
# Two nodes of eight GPUs. Two minutes before the time is up (or when an administrator asks for the nodes) Slurm sends
# USR1 to this script; the training processes then get SIGTERM, write a checkpoint and end, and the job is queued again.
# The same command continues from the checkpoint.
#SBATCH --job-name=stvideo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120

set -euo pipefail
address=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# One launcher per node; it starts one process per GPU. Asked to end, it gives them 100 seconds for their checkpoint.
srun torchrun \
  --nnodes "$SLURM_NNODES" --nproc_per_node 8 \
  --shutdown_timeout 100 \
  --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$address:29500" \
  -m stvideo.train "$@" &
launcher=$!

again=false
trap 'again=true; kill -TERM "$launcher"' USR1
status=0
wait "$launcher" || status=$?
if $again; then
  wait "$launcher" || true # the first wait ended with the signal; this one waits for the checkpoint
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
