from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from rl_scaling.config import ConfigError
from rl_scaling.envs import GymnasiumVector, Transition, make_vector
from rl_scaling.envs.config import GymnasiumConfig
from rl_scaling.envs.gymnasium_vector import _load_plug_ins


class Corridor(gymnasium.Env[np.ndarray, np.int64]):
    """The observation counts the steps and each pays 2; action `first + 1` leaves; `limit` steps are the most."""

    def __init__(self, limit: int, first: int = 0, dtype: type = np.float64, n: int = 2) -> None:
        self.observation_space = Box(0, 100, (2,), dtype)
        self.action_space = Discrete(n, start=first)
        self.limit, self.first, self.dtype = limit, first, dtype

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.t = 0
        return np.zeros(2, self.dtype), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return np.full(2, self.t, self.dtype), 2.0, int(action) == self.first + 1, self.t >= self.limit, {}


def corridors(*limits: int, mode: AutoresetMode = AutoresetMode.NEXT_STEP, **options: Any) -> SyncVectorEnv:
    return SyncVectorEnv([lambda limit=limit: Corridor(limit, **options) for limit in limits], autoreset_mode=mode)


def test_ends_limits_and_resets() -> None:
    """Environment 0 is cut after 2 steps, 1 leaves on step 3 (the same step as its limit), 2 goes on."""
    source = GymnasiumVector(corridors(2, 3, 9))
    first = source.reset(0)
    assert (source.num_envs, source.num_actions, source.observation_shape) == (3, 2, (2,))
    assert first.dtype == np.float32
    assert not first.any()
    steps = [source.step(np.array([0, t == 2, 0])) for t in range(5)]
    assert [s.observations[:, 0].tolist() for s in steps] == [[1, 1, 1], [2, 2, 2], [0, 3, 3], [1, 0, 4], [2, 1, 5]]
    assert [s.rewards.tolist() for s in steps] == [[2, 2, 2], [2, 2, 2], [0, 2, 2], [2, 0, 2], [2, 2, 2]]
    assert [np.flatnonzero(s.truncated).tolist() for s in steps] == [[], [0], [], [], [0]]
    assert [np.flatnonzero(s.terminated).tolist() for s in steps] == [[], [], [1], [], []]
    assert [np.flatnonzero(~s.valid).tolist() for s in steps] == [[], [], [0], [1], []]
    finished = [(s.finished.tolist(), s.episode_scores.tolist(), s.episode_frames.tolist()) for s in steps]
    assert finished == [([], [], []), ([0], [4], [2]), ([1], [6], [3]), ([], [], []), ([0], [4], [2])]


def columns(step: Transition) -> list[np.ndarray]:
    return list(vars(step).values())


def test_cartpole_scores_are_lengths_and_seeds_decide() -> None:
    def run(seed: int) -> list[Transition]:
        source = make_vector(GymnasiumConfig(env_id="CartPole-v1", num_envs=4))
        source.reset(seed)
        random = np.random.default_rng(0)
        steps = [source.step(random.integers(2, size=4)) for _ in range(200)]
        source.close()
        return steps

    one, same, other = run(0), run(0), run(1)
    assert all(
        np.array_equal(a, b)
        for s, t in zip(one, same, strict=True)
        for a, b in zip(columns(s), columns(t), strict=True)
    )
    assert not np.array_equal(one[0].observations, other[0].observations)
    assert sum(len(s.finished) for s in one) > 10
    assert all(np.array_equal(s.episode_scores, s.episode_frames) for s in one)
    frames = sum(int(s.episode_frames.sum()) for s in one)
    assert frames <= sum(int(s.valid.sum()) for s in one) < 4 * 200


def test_runs_with_neighbouring_seeds_share_no_environment() -> None:
    source = make_vector(GymnasiumConfig(env_id="CartPole-v1", num_envs=4))
    starts = np.concatenate([source.reset(seed) for seed in range(3)])
    assert len(np.unique(starts, axis=0)) == 12


def test_parallel_environments_of_gymnasium_give_the_same() -> None:
    def run(env: VectorEnv[Any, Any, Any]) -> list[Transition]:
        source = GymnasiumVector(env)
        source.reset(0)
        steps = [source.step(np.zeros(2, int)) for _ in range(10)]
        source.close()
        return steps

    functions = [lambda limit=limit: Corridor(limit) for limit in (2, 3)]
    ours, theirs = run(AsyncVectorEnv(functions)), run(SyncVectorEnv(functions))
    assert all(
        np.array_equal(a, b)
        for s, t in zip(ours, theirs, strict=True)
        for a, b in zip(columns(s), columns(t), strict=True)
    )


def test_environments_vectorised_by_their_authors_work() -> None:
    env = gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    source = GymnasiumVector(env)
    source.reset(0)
    steps = [source.step(np.ones(3, int)) for _ in range(40)]
    assert sum(len(s.finished) for s in steps) >= 9
    assert all(np.array_equal(s.episode_scores, s.episode_frames) for s in steps)


def test_actions_that_start_elsewhere_are_shifted() -> None:
    source = GymnasiumVector(corridors(9, first=5))
    source.reset(0)
    assert not source.step(np.array([0])).terminated[0]
    assert source.step(np.array([1])).terminated[0]


def test_pixels_stay_bytes_and_returned_arrays_are_never_written_to_again() -> None:
    source = GymnasiumVector(corridors(9, dtype=np.uint8))
    first = source.reset(0)
    assert first.dtype == np.uint8
    step = source.step(np.array([0]))
    source.step(np.array([0]))
    assert (first[0, 0], step.observations[0, 0]) == (0, 1)


class Talk(gymnasium.Env[Any, Any]):
    """Everything is text, or only what is seen."""

    def __init__(self, action_space: Space[Any], observation_space: Space[Any]) -> None:
        self.action_space, self.observation_space = action_space, observation_space


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ((Discrete(2), Dict({"order": Text(5), "place": Discrete(3)})), "observations are Dict.* with Text"),
        ((Dict({"left": Discrete(2)}), Box(0, 1, (2,))), "actions are Dict.*'left': Discrete"),
        ((Box(0, 9, (2,), np.int64), Box(0, 1, (2,))), r"actions are Box\(0, 9, \(2,\), int64\)"),
    ],
)
def test_spaces_that_are_not_handled_are_refused_by_name(spaces: tuple[Space[Any], Space[Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        GymnasiumVector(SyncVectorEnv([lambda: Talk(*spaces)], autoreset_mode=AutoresetMode.NEXT_STEP))
    assert "\n" not in str(caught.value)


class Echo(gymnasium.Env[Any, Any]):
    """Shows what it was given, as a dictionary; its pay is the sum."""

    def __init__(self, action_space: Space[Any]) -> None:
        self.action_space = action_space
        self.observation_space = Dict({"time": Discrete(9), "given": Box(-99, 99, action_space.shape, np.float64)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.time = 0
        return {"time": 0, "given": np.zeros(self.action_space.shape or ())}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in self.action_space
        self.time += 1
        given = np.asarray(action, np.float64)
        return {"time": self.time, "given": given}, float(given.sum()), False, False, {}


@pytest.mark.parametrize(
    ("native", "actions", "seen"),
    [
        (MultiDiscrete([2, 3], start=[1, 5]), [[0, 2], [1, 0]], [[1, 7], [2, 5]]),
        (MultiBinary([1, 2]), [[0, 1], [1, 1]], [[0, 1], [1, 1]]),
        (Box(-1, 1, (2, 1)), [[0.5, 9.0], [-9.0, 0.25]], [[0.5, 1.0], [-1.0, 0.25]]),
    ],
    ids=["several choices", "switches", "box"],
)
def test_environments_are_given_what_was_chosen_and_their_parts_are_one_vector(
    native: Space[Any], actions: list[Any], seen: list[Any]
) -> None:
    source = GymnasiumVector(SyncVectorEnv([lambda: Echo(native)] * 2, autoreset_mode=AutoresetMode.NEXT_STEP))
    assert (source.num_actions, source.observation_shape) == (0, (11,))
    first = source.reset(0)
    assert first[:, 2:].tolist() == [[1] + [0] * 8] * 2  # the time, one of nine; keys are in the order of the alphabet
    chosen = np.array(actions, np.float32 if isinstance(native, Box) else np.int64)
    step = source.step(chosen)
    assert step.observations[:, :2].tolist() == seen
    assert step.observations[:, 3].tolist() == [1, 1]
    assert step.rewards.tolist() == np.sum(seen, axis=1).tolist()
    for wrong in (chosen[:1], chosen[:, :1], chosen.astype(complex)):
        with pytest.raises(ValueError, match="actions"):
            source.step(wrong)
    if not isinstance(native, Box):
        with pytest.raises(ValueError, match="there is no action 9"):
            source.step(np.where(chosen == chosen.max(), 9, chosen))


REGISTERED = """
import gymnasium

def register_envs():
    gymnasium.register("{name}", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=9)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Writes a module that can be imported; what it registers is forgotten afterwards."""
    known = dict(gymnasium.registry)
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)

    yield write
    gymnasium.registry.clear()
    gymnasium.registry.update(known)


def test_a_module_registers_its_environments_when_it_is_imported(package: Callable[[str, str], None]) -> None:
    package("registers_itself", REGISTERED.format(name="Own/Short-v0") + "\nregister_envs()\nregister_envs = None\n")
    with pytest.raises(ConfigError, match="no environment 'Own/Short-v0'"):
        make_vector(GymnasiumConfig(env_id="Own/Short-v0", num_envs=2))
    source = make_vector(GymnasiumConfig(env_id="registers_itself:Own/Short-v0", num_envs=2))
    source.reset(0)
    steps = [source.step(np.array([t % 2] * 2)) for t in range(9)]
    assert steps[-1].truncated.all()


def test_or_when_its_hook_is_called_which_is_once(package: Callable[[str, str], None]) -> None:
    package("has_a_hook", REGISTERED.format(name="Hooked-v0"))
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a second registration warns
            assert make_vector(GymnasiumConfig(env_id="has_a_hook:Hooked-v0", num_envs=2)).num_envs == 2


def test_gymnasiums_own_function_is_no_hook(package: Callable[[str, str], None]) -> None:
    package("uses_gymnasium", "import math\nfrom gymnasium import register_envs\nregister_envs(math)\n")
    with pytest.raises(ConfigError, match="no environment 'uses_gymnasium:Nothing-v0'"):
        make_vector(GymnasiumConfig(env_id="uses_gymnasium:Nothing-v0", num_envs=2))


def test_plug_ins_are_known_without_a_module(package: Callable[[str, str], None], tmp_path: Path) -> None:
    """Installed distributions that give entry points, one of which is broken."""
    package("plugged", REGISTERED.format(name="Short-v0"))
    metadata = tmp_path / "plugged-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[gymnasium.envs]\nBroken = nowhere:f\nPlugged = plugged:register_envs\n"
    )
    if importlib.util.find_spec("minatar"):  # a plug-in as well, and registered by its hook before
        make_vector(GymnasiumConfig(env_id="minatar.gym:MinAtar/Breakout-v1", num_envs=2))
    _load_plug_ins.cache_clear()
    with pytest.warns(UserWarning, match="nowhere:f did not register its environments: No module named 'nowhere'"):
        source = make_vector(GymnasiumConfig(env_id="Plugged/Short-v0", num_envs=2))
    assert source.num_envs == 2
    _load_plug_ins.cache_clear()


def test_minatar_is_found_by_its_hook() -> None:
    pytest.importorskip("minatar")
    source = make_vector(GymnasiumConfig(env_id="minatar.gym:MinAtar/Breakout-v1", num_envs=2))
    assert source.observation_shape == (4, 10, 10)
    assert source.reset(0).dtype == np.float32


@pytest.mark.parametrize(
    ("env_id", "shape", "space"),
    [
        ("Pendulum-v1", (3,), Box(-2, 2, (1,))),
        ("FrozenLake-v1", (16,), Discrete(4)),
        ("Blackjack-v1", (32 + 11 + 2,), Discrete(2)),
        ("Taxi-v4", (500,), Discrete(6)),
        ("MountainCarContinuous-v0", (2,), Box(-1, 1, (1,))),
    ],
)
def test_environments_of_gymnasium_with_other_spaces(env_id: str, shape: tuple[int, ...], space: Space[Any]) -> None:
    source = make_vector(GymnasiumConfig(env_id=env_id, num_envs=2))
    assert (source.observation_shape, source.action_space) == (shape, space)
    assert source.reset(0).shape == (2, *shape)
    one = np.zeros((2, *(space.shape or ())), np.float32 if isinstance(space, Box) else np.int64)
    assert source.step(one).observations.dtype == np.float32
    source.close()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_other_ways_to_reset_are_refused(mode: AutoresetMode) -> None:
    env = corridors(2, mode=mode)
    corridors(2)  # the last one made writes its mode into the metadata that all share
    with pytest.raises(ConfigError, match=f"{mode.name}: make it with autoreset_mode"):
        GymnasiumVector(env)


def test_an_environment_that_says_nothing_of_how_it_resets_is_refused() -> None:
    class Silent(VectorEnv[Any, Any, Any]):
        metadata: dict[str, Any] = {}  # noqa: RUF012

    with pytest.raises(ConfigError, match="says nothing of how it resets"):
        GymnasiumVector(Silent())


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("NoSuchEnv-v0", "no environment 'NoSuchEnv-v0'"),
        ("CartPole", "no environment 'CartPole'"),
        ("nowhere.to_be_found:CartPole-v1", "no module 'nowhere'; install it, or name its folder in PYTHONPATH"),
        ("math:CartPole-v9", "no environment 'math:CartPole-v9'"),
        ("a:b:CartPole-v1", "no module 'a:b'"),
        (":CartPole-v1", "no environment ':CartPole-v1'"),
        (".relative:CartPole-v1", "no module '.relative'"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_in_one_line(env_id: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_vector(GymnasiumConfig(env_id=env_id, num_envs=2))
    assert "\n" not in str(caught.value)


def test_bad_use_is_refused() -> None:
    source = GymnasiumVector(corridors(9))
    with pytest.raises(RuntimeError, match="reset"):
        source.step(np.array([0]))
    with pytest.raises(ConfigError, match="seed is -1"):
        source.reset(-1)
    source.reset(0)
    for actions in (np.array([2]), np.array([-1]), np.array([0.0]), np.array([0, 0])):
        with pytest.raises(ValueError, match="action"):
            source.step(actions)
    source.close()
    source.close()
    with pytest.raises(RuntimeError, match="closed"):
        source.step(np.array([0]))
    with pytest.raises(RuntimeError, match="closed"):
        source.reset(0)
