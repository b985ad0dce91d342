"""A plan carried out: a GPT trained on real ranks by the schedule's own lists of passes.

Read `input` and `output` (the sharded layers), `weights`, `model` (a stage), `links` (who sends
what to whom), `executor` (one iteration), `train` (one rank), `ranks` (processes), `launch`.
Importing this loads no torch.
"""
