"""What a learner is told: plain data."""

from __future__ import annotations

from dataclasses import dataclass

from coterie.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PPOSettings:
    """Proximal policy optimisation of one policy that all agents share.

    Attributes:
        central: The critic sees the whole team (MAPPO); otherwise what its agent sees (IPPO).
        agent_steps: Training ends after so many steps of all agents together.
        rollout: Steps of each environment between two updates.
        epochs: Passes over these steps per update.
        minibatch: Agent-steps per gradient step; as many of equal size as fit.
        learning_rate: Of Adam, to begin with.
        min_learning_rate: `target_kl` does not take it below.
        max_learning_rate: Nor above.
        target_kl: The learning rate follows what the policy changes: after an epoch with a divergence above twice this
            it is divided by 1.5, below half of this multiplied by it. None: it stays.
        decay: The learning rate is also multiplied by the share of `agent_steps` that is still to come, so that the
            policy settles.
        discount: Gamma.
        trace: Lambda of the generalised advantages.
        clip: How far the ratio of probabilities may go from 1.
        value_clip: How far a value may go from what it was, in the critic's units; None: no limit.
        entropy: Weight of the policy's entropy.
        min_std: The standard deviations of continuous actions do not get smaller. Smooth flight pays at once, so they
            would fall for ever, until the policy hardly explores, and each of its changes is a great one.
        max_grad_norm: Greatest norm of the gradient of policy and critic each.
        normalise_values: Critics learn returns of zero mean and unit variance.
        normalise_observations: Observations are divided by their root mean square, and where nothing is known of their
            layout also centred.
        timeouts_terminate: Take a time limit for an end, as quad-swarm-rl does.
        shards: The environments are cut into so many, each of which is stepped by itself and gives its share of each
            gradient, added in order. None: 1.
    """

    central: bool = False
    agent_steps: int = 100_000_000
    rollout: int = 32
    epochs: int = 4
    minibatch: int = 4096
    learning_rate: float = 5e-4
    min_learning_rate: float = 1e-5
    max_learning_rate: float = 1e-3
    target_kl: float | None = 0.02
    decay: bool = True
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    value_clip: float | None = None
    entropy: float = 0.0
    min_std: float = 0.15
    max_grad_norm: float = 1.0
    normalise_values: bool = True
    normalise_observations: bool = True
    timeouts_terminate: bool = False
    shards: int | None = None

    def __post_init__(self) -> None:
        if not self.min_learning_rate <= self.learning_rate <= self.max_learning_rate:
            raise ConfigError(
                f"the learning rate {self.learning_rate} is not between {self.min_learning_rate} and "
                f"{self.max_learning_rate}",
                where="learning.learning_rate",
                remedy="move min_learning_rate or max_learning_rate, or this",
            )
