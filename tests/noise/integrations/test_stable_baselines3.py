"""The callback against Stable-Baselines3 itself: the same gradient, and training that does not notice."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

import rl_scaling.noise
from rl_scaling.noise import NoiseScaleCallback
from rl_scaling.noise.torch.group_gradients import GroupGradients, ModuleGradients
from tests.noise.integrations.reference import flat, naive_gradients, noise_envs

NUM_ENVS, STEPS = 6, 10
VECTOR, CHOICE = spaces.Box(-1, 1, (5,), np.float32), spaces.Discrete(3)
REAL = spaces.Box(-1, 1, (2,), np.float32)
PIXELS = spaces.Box(0, 255, (1, 36, 36), np.uint8)
Settings = dict[str, Any]


class Dropping(BaseFeaturesExtractor):
    """With dropout, a buffer that changes in training, and a layer norm."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space, 8)
        self.body: nn.Module = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Dropout(0.5))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, observations: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
        return self.body(observations)


class Recurrent(Dropping):
    """With a layer that cannot be taken apart, so that one pass per group is needed."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space)
        self.body = nn.Sequential(Last(), nn.Dropout(0.5))


class Last(nn.Module):
    """The last output of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(1, 8, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.cell(inputs.unsqueeze(2))[0][:, -1]


class Normed(Dropping):
    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8))


class SmallPixels(BaseFeaturesExtractor):
    """A convolution with an activation that works in place, behind which its output is no longer what it was."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space, 32)
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 8, stride=4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(inplace=True)
        )

    def forward(self, observations: Tensor) -> Tensor:
        return self.body(observations)


def made(algorithm: type[A2C] | type[PPO], observations: Any, actions: Any, settings: Settings) -> A2C | PPO:
    policy = "MultiInputPolicy" if isinstance(observations, spaces.Dict) else "MlpPolicy"
    whole = {"batch_size": NUM_ENVS * STEPS, "n_epochs": 1} if algorithm is PPO else {}
    envs = noise_envs(observations, actions, NUM_ENVS)
    options = {"ent_coef": 0.05, "n_steps": STEPS, "max_grad_norm": 1e9, **whole, **settings}
    return algorithm(policy, envs, seed=1, device="cpu", **options)


CASES: dict[str, tuple[Any, Any, Any, Settings, bool]] = {
    "a2c": (A2C, VECTOR, CHOICE, {}, True),
    "ppo": (PPO, VECTOR, CHOICE, {}, True),
    "a2c real actions, normalised": (A2C, VECTOR, REAL, {"normalize_advantage": True}, True),
    "ppo real actions, not normalised": (PPO, VECTOR, REAL, {"normalize_advantage": False}, True),
    "a2c several choices": (A2C, VECTOR, spaces.MultiDiscrete([2, 3]), {"vf_coef": 0.0}, True),
    "ppo several bits, value clipped": (PPO, VECTOR, spaces.MultiBinary(3), {"clip_range_vf": 0.1}, True),
    "a2c state-dependent exploration": (A2C, VECTOR, REAL, {"use_sde": True, "sde_sample_freq": 4}, True),
    "ppo squashed": (PPO, VECTOR, REAL, {"use_sde": True, "policy_kwargs": {"squash_output": True}}, True),
    "ppo a dictionary": (PPO, spaces.Dict({"a": VECTOR, "b": CHOICE}), CHOICE, {}, True),
    "a2c pixels": (A2C, PIXELS, CHOICE, {"policy_kwargs": {"features_extractor_class": SmallPixels}}, True),
    "ppo pixels, two bodies": (
        PPO, PIXELS, CHOICE,
        {"policy_kwargs": {"features_extractor_class": SmallPixels, "share_features_extractor": False}}, True,
    ),
    "a2c group by group": (A2C, VECTOR, REAL, {}, False),
}  # fmt: skip


class Listening:
    """Keeps what is measured, what Stable-Baselines3 then steps with, and the naive gradients of the groups."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: A2C | PPO, groups: list[np.ndarray]):
        self.taken: list[GroupGradients] = []
        self.stepped: list[Tensor] = []
        self.naive: list[list[Tensor]] = []
        self.naive_rows: list[list[Tensor]] = []
        take = ModuleGradients.take

        def listen(gradients: ModuleGradients, losses: Any, slices: Any, rows: list[int]) -> GroupGradients:
            self.naive.append(naive_gradients(model, groups))
            self.naive_rows.append(naive_gradients(model, [np.array([row]) for row in rows]))
            self.taken.append(take(gradients, losses, slices, rows))
            return self.taken[-1]

        monkeypatch.setattr(ModuleGradients, "take", listen)
        model.policy.optimizer.register_step_pre_hook(
            lambda *_: self.stepped.append(
                flat(p.grad.clone() for p in model.policy.parameters() if p.grad is not None)
            )
        )


@pytest.mark.parametrize("name", list(CASES))
def test_gradients_equal_those_of_stable_baselines3(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, observations, actions, settings, in_one_pass = CASES[name]
    model = made(algorithm, observations, actions, settings)
    callback = NoiseScaleCallback(every=1, groups=4, frames=3, frames_per_pass=1024 if in_one_pass else 7)
    groups = [np.arange(a * STEPS, b * STEPS) for a, b in ((0, 2), (2, 3), (3, 4), (4, 6))]
    heard = Listening(monkeypatch, model, groups)
    model.learn(3 * NUM_ENVS * STEPS, callback=callback)
    assert len(heard.taken) == len(heard.stepped) == 3
    assert callback._gradients.in_one_pass
    for taken, stepped, naive, rows in zip(heard.taken, heard.stepped, heard.naive, heard.naive_rows, strict=True):
        scale = float(stepped.norm())
        torch.testing.assert_close(flat(taken.gradient), stepped, rtol=0, atol=1e-6 * max(scale, 1))
        sizes = torch.tensor(taken.group_sizes, dtype=torch.float64)
        assert taken.group_sizes == tuple(len(group) for group in groups)
        mean = (torch.stack(naive).double() * sizes[:, None]).sum(0) / sizes.sum()
        torch.testing.assert_close(mean, stepped.double(), rtol=0, atol=1e-6 * max(scale, 1))
        for norms, gradients in ((taken.group_sq_norms, naive), (taken.row_sq_norms, rows)):
            expected = torch.stack([gradient.double().pow(2).sum() for gradient in gradients])
            torch.testing.assert_close(norms, expected, rtol=1e-4, atol=0)
        assert taken.batch_sq_norm == pytest.approx(scale**2, rel=1e-4)


@pytest.mark.parametrize(("extractor", "in_one_pass"), [(Dropping, True), (Recurrent, False)])
def test_dropout_and_other_layers_are_measured(extractor: type[Dropping], in_one_pass: bool) -> None:
    model = made(A2C, VECTOR, CHOICE, {"policy_kwargs": {"features_extractor_class": extractor}})
    callback = NoiseScaleCallback(every=1, groups=3)
    model.learn(2 * NUM_ENVS * STEPS, callback=callback)
    assert callback._gradients.in_one_pass == in_one_pass
    assert callback.meter.estimate().steps == 2


def trained(settings: Settings, algorithm: Any, actions: Any, callback: BaseCallback | None) -> list[Any]:
    """Weights, buffers, optimiser, random states and modes after training."""
    np.random.seed(0)  # noqa: NPY002 - the state that Stable-Baselines3 draws its minibatches from
    model = made(algorithm, VECTOR, actions, {"learning_rate": 3e-3, **settings})
    modes: list[bool] = []
    model.policy.optimizer.register_step_pre_hook(lambda *_: modes.append(model.policy.training))
    model.learn(6 * NUM_ENVS * STEPS, callback=callback)
    optimiser = [value for state in model.policy.optimizer.state.values() for value in state.values()]
    drawn = np.random.random(10)  # noqa: NPY002 - the same if the state is
    return [*model.policy.state_dict().values(), *optimiser, torch.get_rng_state(), drawn, modes]


@pytest.mark.parametrize(
    ("algorithm", "actions", "settings"),
    [
        (A2C, REAL, {"policy_kwargs": {"features_extractor_class": Dropping}}),
        (A2C, REAL, {"policy_kwargs": {"features_extractor_class": Recurrent}}),
        (PPO, CHOICE, {"batch_size": 20, "n_epochs": 3}),
        (PPO, REAL, {"use_sde": True, "sde_sample_freq": 3, "batch_size": 20}),
    ],
)
def test_training_is_the_same_bit_by_bit(algorithm: Any, actions: Any, settings: Settings) -> None:
    callback = NoiseScaleCallback(every=2, groups=3)
    plain, measured = (trained(settings, algorithm, actions, c) for c in (None, callback))
    assert callback.estimate().steps == 3
    for without, with_it in zip(plain, measured, strict=True):
        assert np.array_equal(np.asarray(without), np.asarray(with_it))


def test_measuring_leaves_the_policy_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(A2C, VECTOR, CHOICE, {"policy_kwargs": {"features_extractor_class": Dropping}})
    body = model.policy.features_extractor
    seen: list[tuple[Any, ...]] = []

    def state() -> tuple[Any, ...]:
        grads = [None if p.grad is None else p.grad.clone() for p in model.policy.parameters()]
        modes = [module.training for module in model.policy.modules()]
        hooks = [len(module._forward_hooks) for module in model.policy.modules()]
        return modes, hooks, float(body.passes), model.policy.action_dist.distribution, str(grads)  # pyright: ignore[reportArgumentType]

    measure = NoiseScaleCallback._measure

    def between(callback: NoiseScaleCallback, *args: float) -> None:
        seen.append(state())
        measure(callback, *args)
        seen.append(state())

    monkeypatch.setattr(NoiseScaleCallback, "_measure", between)
    model.learn(2 * NUM_ENVS * STEPS, callback=NoiseScaleCallback(every=1))
    assert len(seen) == 4
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]


def test_a_minibatch_differs_from_the_rollout_by_the_luck_of_the_draw_only() -> None:
    """PPO normalises advantages minibatch by minibatch; over many draws that is the rollout's gradient, nearly.

    20 of 60 frames, 400 draws. What is left is that 1 / deviation is bent, of order 1 / minibatch.
    """
    model = made(PPO, VECTOR, CHOICE, {})
    model.learn(NUM_ENVS * STEPS)
    buffer, parameters, random = model.rollout_buffer, list(model.policy.parameters()), np.random.default_rng(0)

    def gradient(rows: np.ndarray) -> Tensor:
        """Of the surrogate alone: the rest of the loss knows no normalisation. Rows of a buffer that is flat by now."""
        a = torch.tensor(buffer.advantages[rows]).flatten()
        a = (a - a.mean()) / (a.std() + 1e-8)
        actions = torch.tensor(buffer.actions[rows]).long().flatten()
        _, log_probs, _ = model.policy.evaluate_actions(torch.tensor(buffer.observations[rows]), actions)
        loss = -(a * (log_probs - torch.tensor(buffer.log_probs[rows]).flatten()).exp()).mean()
        return flat(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))

    rollout = gradient(np.arange(NUM_ENVS * STEPS))
    drawn = torch.stack([gradient(random.choice(NUM_ENVS * STEPS, 20, replace=False)) for _ in range(400)])
    scatter = drawn.std(0).norm() / 400**0.5
    assert scatter < 0.1 * rollout.norm()
    assert (drawn.mean(0) - rollout).norm() < 0.05 * rollout.norm() + 2 * scatter


def test_what_is_logged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    logged: dict[str, list[Any]] = {}
    record = Logger.record

    def listen(logger: Logger, key: str, value: Any, exclude: Any = None) -> None:
        logged.setdefault(key, []).append(value)
        record(logger, key, value, exclude)

    monkeypatch.setattr(Logger, "record", listen)
    settings: Settings = {"batch_size": 20, "n_epochs": 2, "learning_rate": lambda left: 1e-3 * left}
    model = made(PPO, VECTOR, CHOICE, settings)
    callback = NoiseScaleCallback(every=1, confidence=0.9, verbose=2)
    model.learn(4 * NUM_ENVS * STEPS, callback=callback)
    noise = {key.removeprefix("noise_scale/"): values for key, values in logged.items() if key.startswith("noise_sc")}
    assert set(noise) == {"b_simple", "low", "high", "resolved", "design_effect", "learning_rate", "batch_size"}
    assert noise["learning_rate"] == pytest.approx([0.75e-3, 0.5e-3, 0.25e-3, 0.0])
    assert noise["learning_rate"] == logged["train/learning_rate"]
    assert noise["batch_size"] == [20] * 4
    estimate = callback.estimate()
    assert (estimate.confidence, estimate.steps, estimate.batch_size) == (0.9, 4, NUM_ENVS * STEPS)
    assert estimate.learning_rate == pytest.approx((0.75 * 0.5 * 0.25) ** (1 / 3) * 1e-3)
    last = [noise[name][-1] for name in ("b_simple", "low", "high", "resolved", "design_effect")]
    expected = [estimate.b_simple, estimate.low, estimate.high, int(estimate.resolved), estimate.design_effect]
    assert np.array_equal(last, expected, equal_nan=True)
    assert estimate.design_effect > 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 5
    assert shown[0].startswith("60 frames: ")
    assert shown[-1] == f"noise scale: {estimate}"


def test_cadence_follows_the_algorithm() -> None:
    for algorithm, measurements in ((A2C, 2), (PPO, 13)):
        callback = NoiseScaleCallback()
        made(algorithm, VECTOR, CHOICE, {}).learn(51 * NUM_ENVS * STEPS, callback=callback)
        assert callback.estimate().steps == measurements


def test_a_resumed_callback_goes_on_exactly() -> None:
    def learn(*parts: int) -> Settings:
        model, state = made(A2C, VECTOR, CHOICE, {}), NoiseScaleCallback(every=2).state_dict()
        for rollouts in parts:
            callback = NoiseScaleCallback(every=2)
            callback.load_state_dict(state)
            model.learn(rollouts * NUM_ENVS * STEPS, callback=callback, reset_num_timesteps=False)
            state = callback.state_dict()
        return state

    assert learn(7) == learn(3, 4)


def test_one_callback_for_two_calls_of_learn_keeps_what_it_measured() -> None:
    model, callback = made(A2C, VECTOR, CHOICE, {}), NoiseScaleCallback(every=1)
    for _ in range(2):
        model.learn(3 * NUM_ENVS * STEPS, callback=callback)
    assert callback.estimate().steps == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every is 0: give a number of rollouts"),
        ({"groups": 1}, "needs 2 or more"),
        ({"window": 0.5}, "window is 0.5"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"frames": -1}, "frames is -1"),
        ({"frames_per_pass": 0}, "frames_per_pass is 0"),
    ],
)
def test_options_out_of_range_are_refused(options: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseScaleCallback(**options)


class RecurrentPPO(OnPolicyAlgorithm):
    def train(self) -> None:
        pass


class OtherA2C(A2C):
    def train(self) -> None:
        super().train()


def recurrent() -> RecurrentPPO:
    spaces_and_rates: Settings = {"learning_rate": 1e-3, "n_steps": 5, "gamma": 0.9, "gae_lambda": 1.0, "ent_coef": 0.0}
    loss: Settings = {"vf_coef": 0.5, "max_grad_norm": 0.5, "use_sde": False, "sde_sample_freq": -1}
    envs = noise_envs(VECTOR, CHOICE, 2)
    return RecurrentPPO(ActorCriticPolicy, envs, device="cpu", **spaces_and_rates, **loss)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "DQN": (lambda: DQN("MlpPolicy", noise_envs(VECTOR, CHOICE, 2), device="cpu"), "DQN learns from a replay buffer"),
    "SAC": (lambda: SAC("MlpPolicy", noise_envs(VECTOR, REAL, 2), device="cpu"), "SAC learns from a replay buffer"),
    "recurrent": (recurrent, r"RecurrentPPO has a train\(\) of its own \(recurrent"),
    "subclass": (lambda: OtherA2C("MlpPolicy", noise_envs(VECTOR, CHOICE, 2)), r"OtherA2C has a train\(\) of its own"),
    "one environment": (lambda: A2C("MlpPolicy", noise_envs(VECTOR, CHOICE, 1)), "one environment gives no groups"),
    "batch norm": (
        lambda: made(A2C, VECTOR, CHOICE, {"policy_kwargs": {"features_extractor_class": Normed}}),
        r"features_extractor.body.1 is batch normalisation",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_measured_is_refused_in_one_line(name: str) -> None:
    make, message = REFUSED[name]
    model = make()
    with pytest.raises(ValueError, match=message) as caught:
        model.learn(100, callback=NoiseScaleCallback())
    assert "\n" not in str(caught.value)


def test_states_of_something_else_are_refused() -> None:
    callback = NoiseScaleCallback(every=1)
    with pytest.raises(ValueError, match="pass the callback to"):
        callback.estimate()
    for state in ({}, {"rollouts": 1, "meter": {}}, {"rollouts": "x", "meter": None}):
        with pytest.raises(ValueError, match=r"not the state|invalid literal"):
            callback.load_state_dict(state)
    made(A2C, VECTOR, CHOICE, {}).learn(120, callback=callback)
    with pytest.raises(ValueError, match="window"):
        NoiseScaleCallback(window=5).load_state_dict(callback.state_dict())
    other = A2C("MlpPolicy", noise_envs(VECTOR, CHOICE, 4), n_steps=3, device="cpu")
    with pytest.raises(ValueError, match="its environments is 6, here it is 4"):
        other.learn(100, callback=callback)


def test_a_diverged_policy_ends_nothing() -> None:
    model, callback = made(A2C, VECTOR, REAL, {}), NoiseScaleCallback(every=1, verbose=1)
    callback.init_callback(model)
    callback.meter.update([float("nan")] * 2, float("nan"))
    callback._log(1e-3)
    callback.on_training_end()
    assert callback.meter.state_dict()["skipped"] == 1


def test_without_stable_baselines3_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("stable_baselines3")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "rl_scaling.noise.integrations.stable_baselines3")
    with pytest.raises(ImportError, match="needs Stable-Baselines3: pip install stable-baselines3"):
        rl_scaling.noise.NoiseScaleCallback  # noqa: B018 - the look-up is what imports
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        rl_scaling.noise.Nothing  # noqa: B018


@pytest.mark.statistical
def test_the_estimate_does_not_depend_on_the_grouping() -> None:
    """CartPole, 16 environments: 16 groups and 4 see the same rollouts. Chance of a false alarm well under 1 %."""
    found = []
    for groups in (4, 16):
        callback = NoiseScaleCallback(every=1, groups=groups, confidence=0.99)
        envs = make_vec_env("CartPole-v1", n_envs=16, seed=0)
        A2C("MlpPolicy", envs, seed=0, device="cpu", learning_rate=1e-9).learn(16_000, callback=callback)
        found.append(callback.estimate())
    few, many = found
    assert few.resolved
    assert many.resolved
    assert few.low < many.b_simple < few.high
