torchrun --nproc_per_node 4 pretrain_gpt.py --num-layers 30 --hidden-size 1024 --num-attention-heads 16 --seq-length 512 \
  --micro-batch-size 4 --vocab-size 30522 --pipeline-model-parallel-size 4 --decoder-last-pipeline-num-layers 3
