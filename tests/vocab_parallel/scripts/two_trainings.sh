for L in 12 24; do
  torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers $L --hidden-size 1024 --num-attention-heads 16 --seq-length 512 --micro-batch-size 4 --vocab-size 30522
done
