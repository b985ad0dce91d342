torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 16 --hidden-size 1024 --num-attention-heads 16 --seq-length 512 \
  --micro-batch-size 4 --vocab-size 30522 --pipeline-model-parallel-size 2 --pipeline-model-parallel-layout "Et*4|t*4|t*4|t*4L"
