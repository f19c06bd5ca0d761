"""MinAtar on the real package: what its own `Environment` says when it is stepped by hand, with resets and limits."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minatar import Environment
from minatar.gym import BaseEnv

from rl_scaling.config import ConfigError, parse, to_dict
from rl_scaling.envs import GymnasiumVector, MinAtarVector, Transition, make, make_vector
from rl_scaling.envs.config import MINATAR_CHANNELS, EnvironmentConfig, MinAtarConfig

GAMES = list(MINATAR_CHANNELS)
# A game that random play ends every few steps, and the one that ends after 2501 steps whatever is done.
SHORT, ENDLESS = "breakout", "freeway"


def vector(game: str = SHORT, num_envs: int = 3, **options: object) -> MinAtarVector:
    source = make_vector(MinAtarConfig(game=game, num_envs=num_envs, **options))  # pyright: ignore[reportArgumentType]
    assert isinstance(source, MinAtarVector)
    return source


def play(source: MinAtarVector | GymnasiumVector, steps: int, seed: int = 0) -> Iterator[tuple[np.ndarray, Transition]]:
    random = np.random.default_rng(seed)
    for _ in range(steps):
        actions = random.integers(source.num_actions, size=source.num_envs)
        yield actions, source.step(actions)


def same(one: Transition, other: Transition) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


def first_seed(seed: int) -> int:
    return int(np.random.default_rng(seed).integers(2**30))


class ByHand:
    """One game of the package as its examples play it, with the rules of `VectorSource` around it."""

    def __init__(self, config: MinAtarConfig, seed: int) -> None:
        self.game = Environment(
            config.game,
            sticky_action_prob=config.sticky_action_probability,
            difficulty_ramping=config.difficulty_ramping,
        )
        self.game.seed(seed)
        self.game.reset()
        self.actions = self.game.minimal_action_set() if config.minimal_actions else [0, 1, 2, 3, 4, 5]
        self.limit = config.max_episode_steps
        self.rewards: list[float] = []
        self.over = False

    def observation(self) -> np.ndarray:
        return np.moveaxis(self.game.state(), 2, 0).astype(np.float32)

    def step(self, action: int) -> tuple[float, bool, bool, bool, tuple[float, int] | None]:
        """Reward, terminated, truncated, valid, (score, frames) of a game that ended."""
        if self.over:
            self.game.reset()
            self.over, self.rewards = False, []
            return 0.0, False, False, False, None
        reward, terminated = self.game.act(self.actions[action])
        self.rewards.append(reward)
        truncated = not terminated and len(self.rewards) == self.limit
        self.over = terminated or truncated
        return reward, terminated, truncated, True, (sum(self.rewards), len(self.rewards)) if self.over else None


def assert_is_played_by_hand(config: MinAtarConfig, seed: int, steps: int) -> list[Transition]:
    source = make_vector(config)
    assert isinstance(source, MinAtarVector)
    observations = source.reset(seed)
    hands = [ByHand(config, first_seed(seed) + number) for number in range(config.num_envs)]
    assert source.observation_shape == observations.shape[1:]
    assert observations.dtype == np.float32
    taken = []
    for number, hand in enumerate(hands):
        assert np.array_equal(observations[number], hand.observation())
    for actions, step in play(source, steps, seed):
        reports = []
        for number, hand in enumerate(hands):
            *flags, report = hand.step(int(actions[number]))
            names = ("rewards", "terminated", "truncated", "valid")
            assert [getattr(step, name)[number] for name in names] == flags
            assert np.array_equal(step.observations[number], hand.observation())
            reports += [(number, *report)] if report else []
        assert list(zip(step.finished, step.episode_scores, step.episode_frames, strict=True)) == reports
        taken.append(step)
    return taken


@pytest.mark.parametrize("game", GAMES)
def test_every_game_is_that_of_the_package(game: str) -> None:
    steps = assert_is_played_by_hand(MinAtarConfig(game=game, num_envs=3, max_episode_steps=60), seed=7, steps=150)
    assert any(len(step.finished) for step in steps)
    assert all(set(np.unique(step.observations)) <= {0.0, 1.0} for step in steps)


@given(
    game=st.sampled_from(GAMES),
    num_envs=st.integers(1, 3),
    sticky=st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    ramping=st.booleans(),
    minimal=st.booleans(),
    limit=st.integers(0, 20),
    seed=st.integers(0, 2**40),
)
def test_so_it_is_with_all_options(
    game: str, num_envs: int, sticky: float, ramping: bool, minimal: bool, limit: int, seed: int
) -> None:
    config = MinAtarConfig(
        game=game,
        num_envs=num_envs,
        sticky_action_probability=sticky,
        difficulty_ramping=ramping,
        minimal_actions=minimal,
        max_episode_steps=limit,
    )
    assert_is_played_by_hand(config, seed, steps=30)


@pytest.mark.parametrize("game", GAMES)
def test_so_it_is_with_the_packages_gymnasium_environments(game: str) -> None:
    """Those of the names "-v1", in Gymnasium's own vector: the same seeds give the same transitions."""
    config = MinAtarConfig(game=game, num_envs=3, max_episode_steps=0)
    ours = make_vector(config)
    make_one = lambda: BaseEnv(game, use_minimal_action_set=True)  # noqa: E731
    theirs = GymnasiumVector(gymnasium.vector.SyncVectorEnv([make_one] * 3))
    assert ours.num_actions == theirs.num_actions
    assert np.array_equal(ours.reset(4), theirs.reset(4))
    for (_, one), (_, other) in zip(play(ours, 80), play(theirs, 80), strict=True):  # pyright: ignore[reportArgumentType]
        assert same(one, other)


@pytest.mark.parametrize("game", GAMES)
def test_channels_and_actions_are_the_packages(game: str) -> None:
    package = Environment(game)
    minimal, full = vector(game), vector(game, minimal_actions=False)
    assert minimal.observation_shape == (MINATAR_CHANNELS[game], 10, 10)
    assert [10, 10, MINATAR_CHANNELS[game]] == list(package.state_shape())
    assert minimal.num_actions == len(package.minimal_action_set())
    assert full.num_actions == package.num_actions() == 6


def test_freeway_ends_by_itself_and_a_limit_cuts_before() -> None:
    source, cut = vector(ENDLESS, 2), vector(ENDLESS, 2, max_episode_steps=2500)
    for each in (source, cut):
        each.reset(0)
        for _ in range(2499):
            each.step(np.zeros(2, np.int64))
    last, beyond = source.step(np.zeros(2, np.int64)), source.step(np.zeros(2, np.int64))
    assert not last.terminated.any()
    assert beyond.terminated.all()
    assert beyond.episode_frames.tolist() == [2501, 2501]
    last, beyond = cut.step(np.zeros(2, np.int64)), cut.step(np.zeros(2, np.int64))
    assert last.truncated.all()
    assert not last.terminated.any()
    assert last.episode_frames.tolist() == [2500, 2500]
    assert not beyond.valid.any()


def test_a_seed_says_everything_and_others_share_no_environment() -> None:
    def run(source: MinAtarVector, seed: int) -> list[Transition]:
        source.reset(seed)
        return [step for _, step in play(source, 60)]

    source = vector("freeway", 4, max_episode_steps=25)
    one, again, other = run(source, 0), run(source, 0), run(vector("freeway", 4, max_episode_steps=25), 0)
    assert all(same(a, b) and same(a, c) for a, b, c in zip(one, again, other, strict=True))
    starts = np.concatenate([source.reset(seed).reshape(4, -1) for seed in range(5)])
    assert len(np.unique(starts, axis=0)) == 20, "cars drive at their own speeds in each"


def test_environment_i_does_not_depend_on_how_many_there_are() -> None:
    few, many = vector("freeway", 2), vector("freeway", 5)
    assert np.array_equal(few.reset(3), many.reset(3)[:2])


def test_games_under_way_after_the_random_start_are_not_reported() -> None:
    """Freeway lasts 40 steps here: with a random start the first games end at different times, unreported."""
    source = vector(ENDLESS, 20, max_episode_steps=40, max_start_steps=100)
    source.reset(0)
    steps = [step for _, step in play(source, 120)]
    ends = np.array([step.truncated for step in steps]).argmax(0)
    assert len(np.unique(ends)) > 10
    assert ends.max() < 40
    reported = np.concatenate([step.finished for step in steps])
    assert not any(len(step.finished) for step in steps[: ends.min() + 41])
    assert set(reported) == set(range(20))
    assert {int(f) for step in steps for f in step.episode_frames} == {40}


def test_without_a_random_start_all_games_are_reported() -> None:
    source = vector(ENDLESS, 3, max_episode_steps=40)
    source.reset(0)
    assert [t for t, (_, step) in enumerate(play(source, 90)) if len(step.finished) == 3] == [39, 80]


def test_arrays_that_were_given_are_never_written_to_again() -> None:
    source = vector()
    given = [source.reset(0)] + [array for _, step in play(source, 5) for array in vars(step).values()]
    kept = [array.copy() for array in given]
    list(play(source, 50))
    assert all(np.array_equal(a, b) for a, b in zip(given, kept, strict=True))


def test_groups_and_halves_are_made_of_it() -> None:
    config = MinAtarConfig(game=SHORT, num_envs=4)
    for source in (make_vector(config, group_envs=2), make_vector(config, alternate=True)):
        source.reset(0)
        assert source.step(np.zeros(4, np.int64)).observations.shape == (4, 4, 10, 10)
        source.close()


def test_bad_use_is_refused() -> None:
    source = vector()
    with pytest.raises(RuntimeError, match="call reset"):
        source.step(np.zeros(3, np.int64))
    with pytest.raises(ConfigError, match="seed is -1"):
        source.reset(-1)
    source.reset(0)
    for actions in (np.zeros(2, np.int64), np.full(3, 3), np.full(3, -1), np.zeros(3)):
        with pytest.raises(ValueError, match="action"):
            source.step(actions)
    source.step(np.zeros(3, np.int64))
    source.close()
    source.close()
    for use in (lambda: source.step(np.zeros(3, np.int64)), lambda: source.reset(0)):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_a_step_that_was_interrupted_is_not_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    source = vector()
    source.reset(0)
    monkeypatch.setattr(source._games[1], "act", lambda action: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        source.step(np.zeros(3, np.int64))
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="call reset"):
        source.step(np.zeros(3, np.int64))
    source.reset(0)
    source.step(np.zeros(3, np.int64))


def test_options_are_recorded() -> None:
    config = MinAtarConfig(game="seaquest", sticky_action_probability=0, difficulty_ramping=False)
    plain = to_dict(config)
    assert plain == {
        "kind": "minatar",
        "game": "seaquest",
        "num_envs": 16,
        "sticky_action_probability": 0.0,
        "difficulty_ramping": False,
        "minimal_actions": True,
        "max_episode_steps": 5000,
        "max_start_steps": 0,
    }
    assert parse(EnvironmentConfig, plain, "environment") == config
    assert config.name == "minatar/seaquest"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "brakeout"}, "no MinAtar game 'brakeout'; nearest: breakout"),
        ({"game": "pong"}, "no MinAtar game 'pong'; some there are: asterix, breakout"),
        ({"sticky_action_probability": 1.5}, "give a number from 0 to 1"),
        ({"max_episode_steps": -1}, r"max_episode_steps is -1: give 0 \(none\) or more"),
        ({"max_start_steps": -1}, r"max_start_steps is -1: give 0 \(none\) or more"),
        ({"num_envs": 0}, "num_envs is 0"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        MinAtarConfig(**{"game": SHORT} | options)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(make, "find_spec", lambda name: None if name == "minatar" else found(name))
    with pytest.raises(ConfigError, match=r"pip install 'rl-scaling\[minatar\]'") as caught:
        make_vector(MinAtarConfig(game=SHORT))
    assert "\n" not in str(caught.value)
