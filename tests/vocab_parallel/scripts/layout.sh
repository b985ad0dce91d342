CONFIG=${1:-small}
train() {
    local layout="$1"; shift
    torchrun --standalone --nproc_per_node 4 pretrain_gpt.py --pipeline-model-parallel-layout "$layout" "$@"
}
if [[ $CONFIG == small && -z "${FAST}" ]]; then LAYERS=14; else LAYERS=62; fi
train "Et*3|(t*4|)*2t*3L" --num-layers $LAYERS --hidden-size 512 --num-attention-heads 8 --seq-length 512 \
    --pipeline-model-parallel-size 4 --micro-batch-size 1 --vocab-size 32000 --recompute-activations
