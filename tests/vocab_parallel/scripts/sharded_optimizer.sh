torchrun --nproc_per_node 8 --nnodes 2 pretrain_gpt.py --num-layers 8 --hidden-size 1024 --num-attention-heads 16 --seq-length 512 \
  --micro-batch-size 4 --vocab-size 30522 --pipeline-model-parallel-size 4 --tensor-model-parallel-size 2 --sequence-parallel --bf16 --use-distributed-optimizer
