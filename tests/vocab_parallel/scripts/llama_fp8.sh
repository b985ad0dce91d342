#!/bin/bash
TOKENIZER_ARG=${3:-"MOCK"} # a path, or "MOCK"
DATA_ARG=${4:-"MOCK"}
mkdir -p "$(dirname "${1:-checkpoints/llama}")"
PRETRAIN="pretrain_gpt.py"
DTYPE="fp8"
MODEL_ARGS=(--use-mcore-models --num-layers 32 --hidden-size 4096 --ffn-hidden-size 14336
    --num-attention-heads 32 --seq-length 8192 --max-position-embeddings 8192
    --untie-embeddings-and-output-weights)
DTYPE_ARGS=()
if [[ "$DTYPE" == "fp8" ]]; then
    DTYPE_ARGS+=(
        "--fp8-format hybrid"
        "--fp8-param-gather"
    )
fi
if [[ "$TOKENIZER_ARG" == "MOCK" ]] || [[ "$DATA_ARG" == "MOCK" ]] || [[ -z "$TOKENIZER_ARG" ]]; then
    DATA=("--mock-data" "--tokenizer-type NullTokenizer" "--vocab-size 128256" "--split '99,1,0'")
else
    DATA=("--data-path $DATA_ARG")
fi
if [ ! -f "$PRETRAIN" ]; then
    echo "Error: $PRETRAIN not found"
    exit 1
fi
torchrun --nproc_per_node 8 "$PRETRAIN" ${MODEL_ARGS[@]} --bf16 --micro-batch-size 1 ${DATA[@]} ${DTYPE_ARGS[@]}
