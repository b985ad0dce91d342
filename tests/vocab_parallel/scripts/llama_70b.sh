#!/bin/bash
export CUDA_DEVICE_MAX_CONNECTIONS=1
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
NUM_NODES=${SLURM_NNODES:-8}
TP_SIZE=4 PP_SIZE=8
TOKENIZER_ARG=${1:-"MOCK"}

DISTRIBUTED_ARGS=(
    --nproc_per_node "$GPUS_PER_NODE"
    --nnodes "$NUM_NODES"
)
MODEL_ARGS=(
    --use-mcore-models
    --num-layers 80 --hidden-size 8192 --ffn-hidden-size 28672
    --num-attention-heads 64 --group-query-attention --num-query-groups 8 --kv-channels 128
    --seq-length 8192 --max-position-embeddings 8192
    --position-embedding-type rope --rotary-base 500000 --rotary-percent 1.0
    --normalization RMSNorm --norm-epsilon 1e-5 --swiglu --disable-bias-linear
    --untie-embeddings-and-output-weights --attention-dropout 0.0 --hidden-dropout 0.0
)
PARALLEL_ARGS=(
    --tensor-model-parallel-size "$TP_SIZE"
    --pipeline-model-parallel-size "$PP_SIZE"
    --decoder-first-pipeline-num-layers 9
    --decoder-last-pipeline-num-layers 11
)
TRAINING_ARGS=(--micro-batch-size 1 --global-batch-size 64 --lr 1.5e-4 --min-lr 1e-5 --bf16 --clip-grad 1.0)
if [[ "$TOKENIZER_ARG" == "MOCK" ]]; then
    DATA_ARGS=(--mock-data "--tokenizer-type TikTokenizer" "--vocab-size 128256" --tiktoken-pattern v2)
else
    DATA_ARGS=(--tokenizer-type HuggingFaceTokenizer --tokenizer-model "$TOKENIZER_ARG")
fi

cmd=(torchrun "${DISTRIBUTED_ARGS[@]}" pretrain_gpt.py
    "${MODEL_ARGS[@]}" "${PARALLEL_ARGS[@]}" "${TRAINING_ARGS[@]}")
"${cmd[@]}" ${DATA_ARGS[@]} --save "${CKPT:-/tmp/ckpt}" || { echo failed; exit 1; }
