#! /bin/bash
# arguments in strings, continued lines, python -m
NNODES=4
GPUS=8
DISTRIBUTED_ARGS="--nproc-per-node=$GPUS --nnodes=${NNODES} --node-rank 0 --rdzv-backend c10d"
OPTIONS=" \
    --num-layers 40 \
    --hidden-size 5120 \
    --num-attention-heads 40 \
    --seq-length 4096 \
    --max-position-embeddings 4096 \
    --micro-batch-size 2 \
    --global-batch-size $((NNODES * 32)) \
    --bf16"
TP=2; PP=4
if [ "$TP" -gt 1 ]; then
  OPTIONS="${OPTIONS} --tensor-model-parallel-size $TP"
fi
OPTIONS+=" --pipeline-model-parallel-size ${PP}"
case $PP in
  4|8) VOCAB=100000 ;;
  *)   VOCAB=1 ;;
esac
run_cmd="python -u -m torch.distributed.run $DISTRIBUTED_ARGS ./pretrain_gpt.py ${OPTIONS} --vocab-size $VOCAB"
echo ${run_cmd}
eval ${run_cmd} 2>&1 | tee train.log
set +x
