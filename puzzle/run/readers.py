"""Where each model's weights come from."""

from __future__ import annotations

from puzzle.run.rewards import models_score
from puzzle.run.settings import Job
from puzzle.run.weights import Reader, random_weights


def readers_of(job: Job) -> dict[str, Reader]:
    """Return where each model's weights come from.

    Without folders of their own the reference is the actor as it was, and the reward model what
    the critic begins as.
    """
    from puzzle.run.checkpoint_files import checkpoint_weights

    running, seed = job.running, job.seed
    actor = random_weights(seed, "actor")
    critic = random_weights(seed, "critic")
    if running.actor_weights:
        actor = checkpoint_weights(running.actor_weights, job.plan.actor, "actor", seed)
    if running.critic_weights:
        critic = checkpoint_weights(running.critic_weights, job.plan.critic, "critic", seed)
    reference, reward = actor, critic
    if running.reference_weights:
        reference = checkpoint_weights(running.reference_weights, job.plan.actor, "actor", seed)
    if running.reward_weights:
        reward = checkpoint_weights(running.reward_weights, job.plan.critic, "critic", seed)
    readers = {"actor": actor, "critic": critic, "reference": reference, "reward": reward}
    if not job.ppo.critic_learns:
        del readers["critic"]
    if not models_score(running):
        del readers["reward"]
    return readers
