"""Configs of runs: ids, sizes, labels, and what is refused."""

import dataclasses
import json
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.agents.config import A2CConfig, PPOConfig, PPOEWMAConfig
from rl_scaling.config import ConfigError, to_dict
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, NoiseScaleConfig, RunConfig, run_config_from_dict
from rl_scaling.envs.config import AtariConfig, GymnasiumConfig, MinAtarConfig

RUN = RunConfig(environment=AtariConfig(game="Pong"), agent=A2CConfig())

runs = st.builds(
    RunConfig,
    environment=st.one_of(
        st.builds(AtariConfig, game=st.sampled_from(["Pong", "Breakout"]), num_envs=st.integers(2, 4096)),
        st.builds(GymnasiumConfig, env_id=st.text(min_size=1), num_envs=st.integers(2, 64)),
    ),
    agent=st.one_of(
        st.builds(A2CConfig, learning_rate=st.floats(1e-8, 1), network=st.sampled_from(["nature", "small", "mlp"])),
        st.builds(PPOConfig, minibatches=st.sampled_from([1, 2, 8, 128]), epochs=st.integers(1, 10)),
        st.builds(PPOConfig, scaling=st.just("minibatch"), minibatch_frames=st.sampled_from([1, 64, 128])),
        st.builds(PPOEWMAConfig, minibatches=st.sampled_from([1, 2, 8, 128]), reference_batch=st.integers(1, 10**6)),
    ),
    frames=st.integers(1, 10**9),
    seed=st.integers(0, 10**6),
)


@given(run=runs)
def test_config_survives_json(run: RunConfig) -> None:
    again = run_config_from_dict(json.loads(json.dumps(to_dict(run))))
    assert again == run
    assert again.run_id == run.run_id


@given(first=runs, second=runs)
def test_run_id_tells_configs_apart(first: RunConfig, second: RunConfig) -> None:
    assert (first.run_id == second.run_id) == (first == second)


def test_the_same_question_written_otherwise_is_the_same_run() -> None:
    written = RunConfig(environment=AtariConfig(game="Pong"), agent=A2CConfig(learning_rate=1), frames=2e6)  # pyright: ignore[reportArgumentType]
    assert written.run_id == dataclasses.replace(written, agent=A2CConfig(learning_rate=1.0), frames=2_000_000).run_id


def test_run_id_is_stable() -> None:
    """A change here makes every sweep on disk start again: only on purpose, and with a line in the CHANGELOG."""
    assert RUN.run_id == "7086f8756e0e"


def test_a_field_added_later_is_left_out_of_the_canonical_config_while_it_has_its_default() -> None:
    plain = to_dict(RUN)
    assert "parts" not in plain["noise_scale"]
    spelled_out = {**plain, "noise_scale": {**plain["noise_scale"], "parts": False}}
    assert run_config_from_dict(spelled_out) == run_config_from_dict(plain) == RUN
    asked = dataclasses.replace(RUN, noise_scale=NoiseScaleConfig(parts=True))
    assert asked.run_id != RUN.run_id
    assert run_config_from_dict(to_dict(asked)) == asked


def test_an_adaptive_batch_is_another_run_of_the_same_task() -> None:
    adaptive = dataclasses.replace(RUN, adaptive=AdaptiveBatchConfig(exchange_rate=300))
    assert adaptive.task == RUN.task
    assert (RUN.setting, adaptive.setting) == ("", "adaptive r=300")
    assert adaptive.run_id != RUN.run_id
    assert run_config_from_dict(json.loads(json.dumps(to_dict(adaptive)))) == adaptive
    other = dataclasses.replace(adaptive, adaptive=AdaptiveBatchConfig(exchange_rate=300, max_envs=64))
    assert other.setting == "adaptive r=300 max_envs=64"


@given(run=runs)
def test_sizes_follow(run: RunConfig) -> None:
    rollout = run.environment.num_envs * run.agent.rollout_steps
    assert run.batch_size * run.agent.updates_per_rollout == rollout * run.agent.frame_uses
    rollouts, rest = divmod(run.updates, run.agent.updates_per_rollout)
    assert rest == 0
    assert (rollouts - 1) * rollout < run.frames <= rollouts * rollout


def test_task_leaves_out_what_a_sweep_varies_and_names_the_rest() -> None:
    def task(**changes: object) -> str:
        environment = dataclasses.replace(
            RUN.environment, **{k: v for k, v in changes.items() if hasattr(RUN.environment, k)}
        )
        agent = dataclasses.replace(RUN.agent, **{k: v for k, v in changes.items() if hasattr(RUN.agent, k)})
        return dataclasses.replace(RUN, environment=environment, agent=agent).task

    assert task() == task(num_envs=64, learning_rate=0.1) == "Pong a2c"
    assert (
        task(network="small", sticky_action_probability=0.25) == "Pong a2c network=small sticky_action_probability=0.25"
    )


def test_what_is_annealed_belongs_to_a_length_of_run() -> None:
    def task(**options: str) -> str:
        return dataclasses.replace(RUN, agent=PPOConfig(**options), frames=1_024).task  # pyright: ignore[reportArgumentType]

    assert task() == "Pong ppo"
    for name in ("learning_rate_schedule", "clip_range_schedule"):
        settings = sorted([f"{name}=linear", "frames=1024"])
        assert task(**{name: "linear"}) == " ".join(["Pong ppo", *settings])


def test_families_of_ppo_are_tasks_of_their_own_and_ppo_keeps_its_id() -> None:
    assert ppo_run(8).run_id == "e8482c4fcc57"
    assert ppo_run(8, scaling="count").run_id == ppo_run(8).run_id
    assert ppo_run(8).task == "Pong ppo"
    assert ppo_run(8, scaling="minibatch").task == "Pong ppo scaling=minibatch"
    by_ewma = ppo_run(8, scaling="ewma")
    assert by_ewma == dataclasses.replace(RUN, environment=ppo_run(8).environment, agent=PPOEWMAConfig())
    assert by_ewma.task == "Pong ppo-ewma"


def test_the_batch_of_a_family_is_what_grows_with_the_environments() -> None:
    """A minibatch; the rollout, of which an outer step is one update; a minibatch."""
    found = []
    for scaling in ("count", "minibatch", "ewma"):
        small, large = ppo_run(8, scaling=scaling), ppo_run(32, scaling=scaling)
        found.append([(run.batch_size, run.agent.frames_at_once(run.environment.num_envs)) for run in (small, large)])
        assert large.updates == -(-RUN.frames // (32 * 128)) * (1 if scaling == "minibatch" else 16)
        for run in (small, large):
            assert run.agent.num_envs_for(run.batch_size) == run.environment.num_envs
    assert found == [[(256, 256), (1024, 1024)], [(1024, 256), (4096, 256)], [(256, 256), (1024, 1024)]]


@given(decay=st.floats(0, 0.999), num_envs=st.integers(1, 512), times=st.sampled_from([2, 4, 64]))
def test_the_centre_of_mass_grows_as_the_batch_shrinks(decay: float, num_envs: int, times: int) -> None:
    """Hilton et al. 2021: a batch c times smaller, a centre of mass 1/(1 - decay) - 1 that is c times larger."""
    config = PPOEWMAConfig()
    small, large = (config.decay_at(decay, n) for n in (num_envs, times * num_envs))
    assert 1 / (1 - small) - 1 == pytest.approx(times * (1 / (1 - large) - 1), rel=1e-9, abs=1e-12)
    assert config.decay_at(decay, config.reference_num_envs) == pytest.approx(decay)


def ppo_run(num_envs: int, **options: object) -> RunConfig:
    agent = PPOConfig(**options)  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(RUN, environment=AtariConfig(game="Pong", num_envs=num_envs), agent=agent)


def adaptive_run(num_envs: int = 16, **changes: object) -> RunConfig:
    adaptive = AdaptiveBatchConfig(**{"exchange_rate": 300} | changes)  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(RUN, environment=AtariConfig(game="Pong", num_envs=num_envs), adaptive=adaptive)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: adaptive_run(exchange_rate=0), "exchange_rate is 0.0: give a positive number"),
        (lambda: adaptive_run(min_envs=64, max_envs=32), "max_envs not below it"),
        (lambda: adaptive_run(max_envs=100), "max_envs is 100: give a multiple of group_envs=8"),
        (lambda: adaptive_run(tolerance=0.5), "tolerance is 0.5: give a factor of 1 or more"),
        (
            lambda: adaptive_run(20),
            "num_envs is 20, where an adaptive batch begins: give a multiple of 8 from 8 to 256",
        ),
        (
            lambda: dataclasses.replace(adaptive_run(), noise_scale=NoiseScaleConfig(every_updates=0)),
            "follows the noise scale: do not turn it off",
        ),
        (
            lambda: dataclasses.replace(adaptive_run(), agent=A2CConfig(learning_rate_schedule="linear")),
            "give constant schedules",
        ),
        (lambda: AtariConfig(game="Pong", num_envs=0), "num_envs is 0: give a positive number"),
        (lambda: AtariConfig(game="Pong", num_envs=2.5), "num_envs is 2.5: give a whole number"),  # pyright: ignore[reportArgumentType]
        (lambda: AtariConfig(game="Pong", sticky_action_probability=1.5), "give a number from 0 to 1"),
        (lambda: A2CConfig(learning_rate=-1e-3), "learning_rate is -0.001: give a positive number"),
        (lambda: A2CConfig(learning_rate=math.nan), "learning_rate is nan"),
        (lambda: A2CConfig(network="big"), "no network 'big'"),  # pyright: ignore[reportArgumentType]
        (
            lambda: ppo_run(6, minibatch_of="environments"),
            "6 environments do not divide into 4 minibatches of environments: give minibatches 3 or 6, or num_envs 4 or"
            " 8$",
        ),
        (
            lambda: ppo_run(5, rollout_steps=3),
            "5 environments of 3 steps do not divide into 4 minibatches of frames: give minibatches 3 or 5, or num_envs"
            " 4 or 8$",
        ),
        (
            lambda: ppo_run(8, minibatch_of="environments", minibatches=8),
            "one environment in each of 8 minibatches gives no groups to compare: give minibatches 4 or num_envs 16",
        ),
        (
            lambda: dataclasses.replace(adaptive_run(32), agent=PPOConfig(minibatch_of="environments", minibatches=16)),
            "8 environments do not divide into 16 minibatches",
        ),
        (
            lambda: ppo_run(5, scaling="minibatch"),
            "5 environments of 128 steps do not divide into minibatches of 256 frames: give num_envs 4 or 6, or",
        ),
        (lambda: ppo_run(1, scaling="minibatch", minibatch_frames=64), "one environment gives no groups to compare"),
        (lambda: PPOConfig(scaling="minibatch", minibatches=8), "minibatches says nothing with scaling minibatch"),
        (lambda: PPOConfig(minibatch_frames=64), "minibatch_frames says nothing with scaling count: leave it out"),
        (
            lambda: PPOConfig(scaling="minibatch", minibatch_of="environments", minibatch_frames=64),
            "minibatch_frames is 64: whole environments need a multiple of rollout_steps=128",
        ),
        (lambda: PPOConfig(scaling="rate"), "no scaling 'rate': count, minibatch or ewma"),  # pyright: ignore[reportArgumentType]
        (lambda: PPOEWMAConfig(scaling="count"), "ppo-ewma scales by ewma: for count and minibatch give the algorithm"),
        (lambda: PPOEWMAConfig(proximal_decay=1.0), "proximal_decay is 1.0: give a number from 0 to below 1"),
        (lambda: PPOConfig(minibatches=0), "minibatches is 0: give a positive number"),
        (lambda: PPOConfig(value_clip_range=-0.1), r"value_clip_range is -0.1: give 0 \(none\) or more"),
        (lambda: PPOConfig(minibatch_of="steps"), "no minibatch_of 'steps': frames or environments"),  # pyright: ignore[reportArgumentType]
        (lambda: NoiseScaleConfig(groups=1), "needs 2 groups or more"),
        (
            lambda: dataclasses.replace(RUN, environment=AtariConfig(game="Pong", num_envs=1)),
            "gives no groups to compare",
        ),
        (
            lambda: dataclasses.replace(RUN, environment=MinAtarConfig(game="breakout")),
            "network 'nature' does not fit minatar/breakout: give minatar or mlp",
        ),
        (lambda: dataclasses.replace(RUN, frames=math.inf), "frames is inf"),
        (lambda: run_config_from_dict({"environment": {}}), "not a run's config"),
        (lambda: run_config_from_dict({**to_dict(RUN), "agent": {"kind": "dreamer"}}), "needs a newer rl-scaling"),
        (lambda: run_config_from_dict({**to_dict(RUN), "colour": 1}), "not a run's config"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_one_environment_is_fine_without_a_noise_scale() -> None:
    alone = AtariConfig(game="Pong", num_envs=1)
    assert dataclasses.replace(RUN, environment=alone, noise_scale=NoiseScaleConfig(every_updates=0)).batch_size == 5
