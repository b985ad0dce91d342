#!/bin/bash
#SBATCH --job-name=gpt --nodes=2
#SBATCH --ntasks-per-node=8
DIR=`pwd`
mkdir -p $DIR/logs
DATETIME=`date +'date_%y-%m-%d_time_%H-%M-%S'`
options=" \
    --num-layers 30 --account-for-embedding-in-pipeline-split --account-for-loss-in-pipeline-split \
    --hidden-size 2048 --num-attention-heads 16 --seq-length 2048 --max-position-embeddings 2048 \
    --pipeline-model-parallel-size 8 --micro-batch-size 4 --global-batch-size 64 \
    --vocab-size 250000 --make-vocab-size-divisible-by 64 --untie-embeddings-and-output-weights \
    --tensorboard-dir $DIR/logs/$DATETIME"
srun -l --output=$DIR/logs/%x.log sh -c "python -u pretrain_gpt.py ${options}"
