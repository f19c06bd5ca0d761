"""The noise scale of A2C and PPO as Stable-Baselines3 trains them: a callback and nothing else.

At the end of a rollout the buffer still knows which frames came from which environment. There the loss of the coming
update is taken once more, for groups of whole environments, and the norms of the groups' gradients go to a
`NoiseScaleMeter`. The model's weights, gradients, buffers, modes and all random states are left as they were: training
gives the same weights, bit by bit, with the callback and without it.

Which gradient. A2C: the one of its update. PPO: the one of its first minibatches, while the ratio of new to old policy
is still one, with advantages normalised by the mean and deviation of the whole rollout for all groups alike. PPO
draws a minibatch from frames of all environments, so a minibatch's statistics are those of the rollout except for the
luck of the draw; a group's own statistics would take out of the group what sets it apart from the others, and that is
the noise to be measured. The gradients of a rollout and of a minibatch have then the same mean, and the noise scale,
in frames, does not depend on the size of the minibatch.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Tensor

try:
    from stable_baselines3 import A2C, PPO
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.buffers import RolloutBuffer
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
    from stable_baselines3.common.policies import ActorCriticPolicy
except ImportError as error:
    raise ImportError("NoiseScaleCallback needs Stable-Baselines3: pip install stable-baselines3") from error

from rl_scaling.noise.clusters import cluster_slices
from rl_scaling.noise.estimate import NoiseScaleEstimate, example_trace, moments_from_groups
from rl_scaling.noise.meter import NoiseScaleMeter
from rl_scaling.noise.torch.adapter import fingerprint
from rl_scaling.noise.torch.group_gradients import ModuleGradients, Rows

# So that measuring takes 2 or 3 % of the time even for CartPole's network: A2C passes over a rollout once, PPO n_epochs
# times; a measurement costs about one such pass, and more where the network is tiny.
_DEFAULT_EVERY = {A2C: 50, PPO: 4}


class NoiseScaleCallback(BaseCallback):
    """Measures B_simple = tr(Sigma) / |G|^2 (McCandlish et al. 2018, eq. 2.9), in frames, while A2C or PPO trains.

    Logs, at each measurement, `noise_scale/` b_simple (once resolved), low, high (once resolved), resolved (0 or 1),
    design_effect, learning_rate of the coming update and batch_size: frames per gradient, which is the rollout for A2C
    and the minibatch for PPO.

    Args:
        every: rollouts from one measurement to the next; None: 50 for A2C, 4 for PPO.
        groups: groups of whole environments, 2 or more; no more than there are environments are made.
        window: time constant, in measurements, of a moving average; None: all measurements count alike.
        frames: single frames per measurement whose gradients are taken for the design effect; 0: none.
        frames_per_pass: most frames in one pass through the policy.
        verbose: 1 prints the estimate when training ends, 2 at each measurement as well.

    Raises:
        ValueError: a number out of range; when training begins, also: another algorithm than A2C and PPO, fewer
            than two environments, batch normalisation, or a loaded state of groups of another size.

    >>> from stable_baselines3 import A2C
    >>> from stable_baselines3.common.env_util import make_vec_env
    >>> model = A2C("MlpPolicy", make_vec_env("CartPole-v1", n_envs=4, seed=0), seed=0, device="cpu")
    >>> noise_scale = NoiseScaleCallback(every=5)
    >>> _ = model.learn(1000, callback=noise_scale)
    >>> noise_scale.estimate().steps
    10
    """

    def __init__(
        self,
        *,
        every: int | None = None,
        groups: int = 8,
        window: float | None = None,
        confidence: float = 0.95,
        frames: int = 8,
        frames_per_pass: int = 1024,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        _require(every is None or every >= 1, f"every is {every}: give a number of rollouts, 1 or more")
        _require(groups >= 2, f"groups is {groups}: the noise scale compares groups and needs 2 or more")
        _require(0 < confidence < 1, f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
        _require(frames >= 0, f"frames is {frames}: give 0 (none) or more")
        _require(frames_per_pass >= 1, f"frames_per_pass is {frames_per_pass}: give 1 or more")
        NoiseScaleMeter(1, window=window)  # to refuse a window out of range here and not when training begins
        self._every, self._groups, self._window, self._confidence = every, groups, window, confidence
        self._frames, self._frames_per_pass = frames, frames_per_pass
        self._rollouts = 0
        self._meter: NoiseScaleMeter | None = None
        self._configuration: dict[str, Any] = {}  # of the training that the measurements come from

    @property
    def meter(self) -> NoiseScaleMeter:
        """The measurements so far.

        Raises:
            ValueError: training has not begun.
        """
        if self._meter is None:
            raise ValueError("no measurements yet: pass the callback to model.learn() first")
        return self._meter

    def estimate(self, confidence: float | None = None) -> NoiseScaleEstimate:
        """The noise scale as measured so far, in frames; its `batch_size` is the rollout, for PPO too.

        Raises:
            ValueError: no measurements yet.
        """
        return self.meter.estimate(self._confidence if confidence is None else confidence)

    def state_dict(self) -> dict[str, Any]:
        """The measurements, as numbers and lists; keep them beside `model.save()` to resume later."""
        return {
            "rollouts": self._rollouts,
            "configuration": self._configuration,
            "meter": None if self._meter is None else self._meter.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes where the callback that gave the state was.

        Raises:
            ValueError: not a state of this callback, or that of one with another window; this one is left as it was.
        """
        try:
            rollouts, configuration, meter = int(state["rollouts"]), dict(state["configuration"]), None
            if state["meter"] is not None:
                meter = NoiseScaleMeter(state["meter"]["group_size"], window=self._window)
                meter.load_state_dict(state["meter"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the state of a NoiseScaleCallback: {error!r}") from error
        self._rollouts, self._configuration, self._meter = rollouts, configuration, meter

    def _init_callback(self) -> None:
        self._interval = self._every or _default_every(self.model)
        n_envs, n_steps = self.model.n_envs, self._buffer.buffer_size
        _require(
            n_envs >= 2,
            "one environment gives no groups to compare: make the model with make_vec_env(..., n_envs=2) or more",
        )
        self._slices = cluster_slices(np.arange(n_envs + 1) * n_steps, self._groups)
        self._gradients = ModuleGradients(self.model.policy, rows_per_pass=self._frames_per_pass)
        group_size = n_envs * n_steps / len(self._slices)
        configuration = {
            "algorithm": type(self.model).__name__,
            "policy": fingerprint(dict(self.model.policy.named_parameters())),
            "environments": n_envs,
            "steps": n_steps,
            "groups": len(self._slices),
        }
        if self._meter is None:
            self._meter, self._configuration = NoiseScaleMeter(group_size, window=self._window), configuration
        for name, value in configuration.items():
            before = self._configuration.get(name)
            _require(
                before == value,
                f"the measurements so far are of another training: its {name} is {before!r}, here it is {value!r}; use"
                " a NoiseScaleCallback of its own",
            )

    @property
    def _buffer(self) -> RolloutBuffer:
        assert isinstance(self.model, A2C | PPO)
        return self.model.rollout_buffer

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self._rollouts % self._interval == 0:
            # What the update will find; the model's own value is still that of the update before.
            progress_remaining = 1 - self.num_timesteps / self.locals["total_timesteps"]
            learning_rate = self.model.lr_schedule(progress_remaining)
            self._measure(progress_remaining, learning_rate)
            self._log(learning_rate)
        self._rollouts += 1

    def _on_training_end(self) -> None:
        estimate = self._estimate_if_any()
        if self.verbose and estimate is not None:
            print(f"noise scale: {estimate}")  # noqa: T201 - as Stable-Baselines3's own callbacks do

    def _measure(self, progress_remaining: float, learning_rate: float) -> None:
        assert isinstance(self.model, A2C | PPO)
        losses = _RowLosses(self.model, progress_remaining)
        with _left_as_it_was(self.model.policy):
            taken = self._gradients.take(losses, self._slices, self._drawn_frames())
        sq_norms, batch_sq_norm, trace = taken.group_sq_norms.tolist(), taken.batch_sq_norm, None
        if self._frames:
            grad_sq_norm, _ = moments_from_groups(sq_norms, batch_sq_norm, taken.group_sizes)
            trace = example_trace(taken.row_sq_norms.tolist(), grad_sq_norm)
        further = {"example_trace": trace, "learning_rate": learning_rate}
        self.meter.update(sq_norms, batch_sq_norm, group_sizes=taken.group_sizes, **further)

    def _drawn_frames(self) -> list[int]:
        """A few frames for the design effect; the draw follows from the rollout's number alone."""
        total = self._slices[-1].stop
        return np.random.default_rng(self._rollouts).choice(total, min(self._frames, total), replace=False).tolist()

    def _log(self, learning_rate: float) -> None:
        estimate = self._estimate_if_any()
        if estimate is None:
            return
        values = {name: getattr(estimate, name) for name in ("b_simple", "low", "high")}
        values |= {"resolved": int(estimate.resolved), "learning_rate": learning_rate}
        values["batch_size"] = self.model.batch_size if isinstance(self.model, PPO) else self._slices[-1].stop
        if self._frames:
            values["design_effect"] = estimate.design_effect
        for name, value in values.items():
            self.logger.record(f"noise_scale/{name}", value)
        if self.verbose >= 2:
            print(f"{self.num_timesteps:,} frames: {estimate}")  # noqa: T201 - as Stable-Baselines3's own callbacks do

    def _estimate_if_any(self) -> NoiseScaleEstimate | None:
        """None where all measurements so far had norms that are not finite: a diverged policy must not end training."""
        try:
            return self.estimate()
        except ValueError:
            return None


class _RowLosses:
    """The coming update's loss as one number per frame, whose mean over a rollout is what the update begins with.

    Frames are in the order of the environments: all steps of the first, then of the second, and so on. Losses and their
    signs as in `A2C.train` and `PPO.train`.
    """

    def __init__(self, model: A2C | PPO, progress_remaining: float):
        self._model, buffer = model, model.rollout_buffer
        flat, self._to_torch = buffer.swap_and_flatten, buffer.to_torch
        seen = buffer.observations
        self._observations = {k: flat(v) for k, v in seen.items()} if isinstance(seen, dict) else flat(seen)
        self._actions = flat(buffer.actions)
        self._values, self._log_probs, self._returns, advantages = (
            self._to_torch(flat(array).flatten())
            for array in (buffer.values, buffer.log_probs, buffer.returns, buffer.advantages)
        )
        if model.normalize_advantage:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        self._advantages = advantages
        self._clip_range, self._clip_range_vf = (
            schedule and schedule(progress_remaining)
            for schedule in (getattr(model, "clip_range", None), getattr(model, "clip_range_vf", None))
        )

    def __call__(self, rows: Rows) -> Tensor:
        """(n,) losses of n frames."""
        values, log_probs, entropy = self._model.policy.evaluate_actions(*self._seen_and_done(rows))
        policy_losses = self._policy_losses(log_probs, rows)
        value_losses = (self._returns[rows] - self._clipped(values.flatten(), rows)) ** 2
        # Without a closed form the entropy is taken from the actions that were drawn.
        entropies = -log_probs if entropy is None else entropy
        return policy_losses + self._model.vf_coef * value_losses - self._model.ent_coef * entropies

    def _seen_and_done(self, rows: Rows) -> tuple[Any, Tensor]:
        seen = self._observations
        observations = (
            {k: self._to_torch(v[rows]) for k, v in seen.items()}
            if isinstance(seen, dict)
            else self._to_torch(seen[rows])
        )
        actions = self._to_torch(self._actions[rows].astype(np.float32, copy=False))
        return observations, actions.long().flatten() if isinstance(self._model.action_space, Discrete) else actions

    def _policy_losses(self, log_probs: Tensor, rows: Rows) -> Tensor:
        advantages = self._advantages[rows]
        if self._clip_range is None:  # A2C
            return -advantages * log_probs
        ratios = torch.exp(log_probs - self._log_probs[rows])
        return -torch.min(advantages * ratios, advantages * ratios.clamp(1 - self._clip_range, 1 + self._clip_range))

    def _clipped(self, values: Tensor, rows: Rows) -> Tensor:
        if self._clip_range_vf is None:
            return values
        old = self._values[rows]
        return old + (values - old).clamp(-self._clip_range_vf, self._clip_range_vf)


@contextmanager
def _left_as_it_was(policy: ActorCriticPolicy) -> Generator[None]:
    """Inside, the policy is in training mode; afterwards it and the random states are what they were before."""
    modes = [(module, module.training) for module in policy.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in policy.buffers()]
    distribution = dict(vars(policy.action_dist))  # else it would keep the graph of this pass in memory
    with torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else []):
        policy.set_training_mode(True)
        try:
            yield
        finally:
            vars(policy.action_dist).update(distribution)
            for module, mode in modes:
                module.training = mode
            with torch.no_grad():
                for buffer, kept in buffers:
                    buffer.copy_(kept)


def _default_every(model: BaseAlgorithm) -> int:
    """Rollouts from one measurement to the next; refuses what cannot be measured."""
    name = type(model).__name__
    _require(
        not isinstance(model, OffPolicyAlgorithm),
        f"{name} learns from a replay buffer, whose batches are of no environment's own: NoiseScaleCallback measures"
        " A2C and PPO",
    )
    for algorithm, every in _DEFAULT_EVERY.items():
        if getattr(type(model), "train", None) is algorithm.train:
            return every
    raise ValueError(
        f"{name} has a train() of its own (recurrent, masked or otherwise changed), whose loss NoiseScaleCallback does"
        " not know: it measures A2C and PPO"
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
