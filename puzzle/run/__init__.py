"""A plan carried out: PPO on real torch.distributed ranks.

Read `layers`, `stage` (a piece of LLaMA), `weights`, `groups`, `links` (messages), `executor` (pass
lists), `update`, `switch`, `generate`, `ppo`, `train` (one rank), `ranks` (processes), `launch`.
Importing this loads no torch.
"""
