NNODES=${SLURM_NNODES:-"1"}
MODEL_ARGS=( --disable-bias-linear --seq-length 2048 --num-layers 32 --hidden-size 4096 --num-attention-heads 32 )
MOE_ARGS=( --num-experts 8 --moe-router-topk 2 )
torchrun --nproc_per_node 8 --nnodes $NNODES pretrain_gpt.py ${MOE_ARGS[@]} ${MODEL_ARGS[@]} --micro-batch-size 1 --vocab-size 32000
