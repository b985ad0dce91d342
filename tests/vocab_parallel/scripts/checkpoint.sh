torchrun --nproc_per_node 8 pretrain_gpt.py --use-checkpoint-args --load ckpt --micro-batch-size 1 --pipeline-model-parallel-size 8
