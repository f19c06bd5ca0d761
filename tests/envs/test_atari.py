from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.stats
from ale_py.roms import get_rom_path

from rl_scaling.config import AtariConfig, ConfigError
from rl_scaling.envs import AtariVector, Transition, atari, available_cpus

from .reference import PlainGame, Recorder


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Let every AtariVector record what its emulators say."""
    made: list[Recorder] = []
    monkeypatch.setattr(Recorder, "made", made, raising=False)
    monkeypatch.setattr(atari, "AtariVectorEnv", Recorder)
    return made


@pytest.fixture
def open_atari() -> Iterator[Callable[..., AtariVector]]:
    """Make AtariVectors that are closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(game: str = "Breakout", num_envs: int = 2, num_threads: int | None = 2, **options: Any) -> AtariVector:
            of_vector = {name: options.pop(name) for name in ("progress", "episode_emulator_frames") if name in options}
            config = AtariConfig(game=game, num_envs=num_envs, **{"max_start_steps": 0, **options})
            vector = AtariVector(config, num_threads=num_threads, **of_vector)
            stack.callback(vector.close)
            return vector

        yield make


def play(vector: AtariVector, steps: int, seed: int = 0) -> list[Transition]:
    random = np.random.default_rng(seed)
    return [vector.step(random.integers(vector.num_actions, size=vector.num_envs)) for _ in range(steps)]


def episodes(transitions: list[Transition]) -> list[tuple[int, int, float, int]]:
    """(step, environment, score, frames) of every game reported."""
    return [
        (t, int(env), float(score), int(frames))
        for t, step in enumerate(transitions)
        for env, score, frames in zip(step.finished, step.episode_scores, step.episode_frames, strict=True)
    ]


@pytest.mark.parametrize("game", ["Breakout", "Pong", "SpaceInvaders", "Qbert"])
def test_gives_what_the_plain_emulator_gives(
    game: str, open_atari: Callable[..., AtariVector], recorders: list[Recorder]
) -> None:
    """Pixels, rewards, ends, lives, limits, resets and scores against one plain emulator per environment."""
    limit = 150
    vector = open_atari(game, episode_emulator_frames=4 * limit)
    first = vector.reset(3)
    (recorder,) = recorders
    plain = [PlainGame(recorder.rom, recorder.seeds[0] + i) for i in range(2)]
    expected = [p.start(int(recorder.last_info["episode_frame_number"][i])) for i, p in enumerate(plain)]
    assert first.dtype == np.uint8
    assert first.shape == (2, *vector.observation_shape)
    _assert_same_pixels(first, np.stack(expected))
    over, score, frames = [False] * 2, [0.0] * 2, [0] * 2
    random = np.random.default_rng(1)
    seen = {"terminated": 0, "truncated": 0, "reset": 0}
    for _ in range(330):
        actions = random.integers(vector.num_actions, size=2)
        step = vector.step(actions)
        for i, game_ in enumerate(plain):
            if over[i]:
                expected[i] = game_.start(int(recorder.last_info["episode_frame_number"][i]))
                assert not step.valid[i]
                assert (step.rewards[i], step.terminated[i], step.truncated[i]) == (0, False, False)
                over[i], score[i], frames[i] = False, 0.0, 0
                seen["reset"] += 1
                continue
            expected[i], reward, game_over, lost = game_.step(int(actions[i]))
            score[i], frames[i] = score[i] + reward, frames[i] + 1
            over[i] = game_over or frames[i] == limit
            assert step.valid[i]
            assert step.rewards[i] == np.sign(reward)
            assert step.terminated[i] == (game_over or lost)
            assert step.truncated[i] == (frames[i] == limit and not (game_over or lost))
            assert (i in step.finished) == over[i]
            if over[i]:
                where = list(step.finished).index(i)
                assert (step.episode_scores[where], step.episode_frames[where]) == (score[i], frames[i])
            seen["terminated"] += bool(step.terminated[i])
            seen["truncated"] += bool(step.truncated[i])
            if not game_over:  # there the newest frame is a blend, but nothing is ever learned from it
                _assert_same_pixels(step.observations[i], expected[i])
    assert seen["reset"] >= 2
    assert seen["truncated"] + seen["terminated"] >= 2


def _assert_same_pixels(observations: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(observations - expected)
    assert difference.max() <= 1  # rounding of exact halves
    assert (difference > 0).mean() < 0.02


def test_the_emulators_own_time_limit_shows_a_frame_that_never_was() -> None:
    """Why the limit is counted here: if this fails, ale-py has changed and `AtariVector` may become simpler."""
    limited, free = (
        atari.AtariVectorEnv("breakout", 1, max_num_frames_per_episode=frames, num_threads=1, life_loss_info=True)
        for frames in (400, 2**30)
    )
    before, _ = limited.reset(seed=3)
    free.reset(seed=3)
    for t in range(1, 101):
        actions = np.random.default_rng(t).integers(4, size=1)
        (
            stale,
            *_,
        ) = limited.step(actions)
        true, *_ = free.step(actions)
        assert np.array_equal(stale, true) == (t < 100)
        if t == 100:
            assert (stale[0, -1] >= before[0, -1]).all()
            assert (stale[0, -1] > true[0, -1]).any()
        before = stale


@pytest.mark.parametrize("game_over", [False, True])
def test_a_life_lost_at_the_time_limit_ends_the_game_once(
    game_over: bool, open_atari: Callable[..., AtariVector]
) -> None:
    """ale-py would report neither a truncation nor an end there, and reset unasked on the next step."""
    free = play_from(open_atari(num_envs=1), 5, 400)
    ends = {False: next(t for t, s in enumerate(free) if s.terminated[0]), True: episodes(free)[0][0]}
    steps = ends[game_over] + 1
    limited = play_from(open_atari(num_envs=1, episode_emulator_frames=4 * steps), 5, steps + 10)
    assert episodes(limited)[0][0] == steps - 1
    assert episodes(limited)[0][3] == steps
    last, reset, after = limited[steps - 1 : steps + 2]
    assert last.terminated[0]
    assert not last.truncated[0]
    assert not reset.valid[0]
    assert after.valid[0]
    assert [t for t, s in enumerate(limited) if not s.valid[0]] == [steps]


def play_from(vector: AtariVector, seed: int, steps: int) -> list[Transition]:
    vector.reset(seed)
    return play(vector, steps)


def test_lost_lives_end_the_return_only_if_asked_to(open_atari: Callable[..., AtariVector]) -> None:
    with_lives = play_from(open_atari(), 1, 300)
    without = play_from(open_atari(life_loss_terminates=False), 1, 300)
    assert episodes(with_lives) == episodes(without)
    games = np.zeros((300, 2), bool)
    for t, env, *_ in episodes(without):
        games[t, env] = True
    assert games.any()
    assert np.array_equal(np.stack([s.terminated for s in without]), games)
    assert np.stack([s.terminated for s in with_lives]).sum() == 5 * games.sum() + _lives_lost_since(with_lives, games)
    assert all(np.array_equal(a.observations, b.observations) for a, b in zip(with_lives, without, strict=True))


def _lives_lost_since(transitions: list[Transition], games: np.ndarray) -> int:
    """Ends of lives after the last game that ended, in each environment."""
    ends = np.stack([s.terminated for s in transitions])
    return sum(int(ends[np.flatnonzero(games[:, i])[-1] + 1 :, i].sum()) for i in range(games.shape[1]))


class Adventure(atari.AtariVectorEnv):
    """Says what ale-py says of Adventure, where a dragon ends the game with a life left."""

    def recv(self) -> Any:
        observations, rewards, ends, truncations, info = super().recv()
        return observations, rewards, ends, truncations, info | {"lives": np.maximum(info["lives"], 1)}


def test_a_game_may_end_with_lives_left(
    open_atari: Callable[..., AtariVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = play_from(open_atari(), 1, 300)
    monkeypatch.setattr(atari, "AtariVectorEnv", Adventure)
    altered = play_from(open_atari(), 1, 300)
    assert episodes(altered) == episodes(plain) != []


@pytest.mark.slow
@pytest.mark.parametrize("game", ["Adventure", "Alien", "BeamRider", "Seaquest", "Krull", "Pitfall", "Freeway"])
def test_the_steps_not_valid_are_the_emulators_resets(
    game: str, open_atari: Callable[..., AtariVector], recorders: list[Recorder]
) -> None:
    transitions = play_from(open_atari(game, num_envs=8), 1, 2_500)
    frames = np.stack([s[4] for s in recorders[0].steps])
    resets = np.vstack([np.zeros((1, 8), bool), np.diff(frames, axis=0) < 0])
    assert np.array_equal(~np.stack([s.valid for s in transitions]), resets)


def test_the_same_seed_gives_the_same_trajectory_for_any_threads_and_pools(
    open_atari: Callable[..., AtariVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trajectory(num_threads: int, pool: int, seed: int) -> list[np.ndarray]:
        monkeypatch.setattr(atari, "ENVS_PER_POOL", pool)
        vector = open_atari(num_envs=3, num_threads=num_threads, max_start_steps=40, sticky_action_probability=0.25)
        first = vector.reset(seed)
        steps = play(vector, 140)
        assert any(not s.valid.all() for s in steps)
        columns = ("observations", "rewards", "terminated", "truncated", "valid")
        return [first] + [np.stack([getattr(s, c) for s in steps]) for c in columns] + [np.array(episodes(steps))]

    one = trajectory(1, 64, 7)
    for threads, pool in ((3, 64), (2, 2)):
        assert all(np.array_equal(a, b) for a, b in zip(one, trajectory(threads, pool, 7), strict=True))
    assert not np.array_equal(one[1], trajectory(1, 64, 8)[1])


def test_reset_again_with_the_same_seed_starts_the_same_games(open_atari: Callable[..., AtariVector]) -> None:
    vector = open_atari(max_start_steps=30)
    first = vector.reset(7)
    before = play(vector, 200)
    assert np.array_equal(first, vector.reset(7))
    after = play(vector, 200)
    assert all(np.array_equal(a.observations, b.observations) for a, b in zip(before, after, strict=True))
    assert episodes(before) == episodes(after)


def test_runs_with_neighbouring_seeds_share_no_emulator_seed(
    open_atari: Callable[..., AtariVector], recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atari, "ENVS_PER_POOL", 2)
    vector = open_atari(num_envs=3)
    for seed in range(3):
        vector.reset(seed)
    used = [seed + i for r in recorders for seed in r.seeds for i in range(r.num_envs)]
    assert len(used) == len(set(used)) == 9


class NoEmulator:
    """As many environments as wanted that do nothing; counts the steps since each was reset."""

    last: NoEmulator

    def __init__(self, rom: str, num_envs: int, **kwargs: Any) -> None:
        self.ale, self.played = self, np.zeros(num_envs, int)
        self.actions: list[np.ndarray] = []
        NoEmulator.last = self

    def get_action_set(self) -> list[int]:
        return [0, 1, 2]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        mask = np.ones(len(self.played), bool) if options is None else options["reset_mask"]
        self.played[mask] = 0
        return np.zeros((len(self.played), 1), np.uint8), {"lives": np.ones(len(self.played), int)}

    def send(self, actions: np.ndarray) -> None:
        self.actions.append(actions)

    def recv(self) -> Any:
        self.played += 1
        n = len(self.played)
        return np.zeros((n, 1), np.uint8), np.ones(n, int), *np.zeros((2, n), bool), {"lives": np.ones(n, int)}


@pytest.mark.statistical
def test_the_random_start_is_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chi-squared tests at a significance of 1e-4 each."""
    monkeypatch.setattr(atari, "AtariVectorEnv", NoEmulator)
    monkeypatch.setattr(atari, "ENVS_PER_POOL", 10**6)
    vector = AtariVector(AtariConfig(game="Pong", num_envs=20_000, max_start_steps=40))
    vector.reset(0)
    counts = np.bincount(NoEmulator.last.played)
    assert len(counts) == 41  # both ends are reached
    assert scipy.stats.chisquare(counts).pvalue > 1e-4
    assert scipy.stats.chisquare(np.bincount(np.concatenate(NoEmulator.last.actions))).pvalue > 1e-4


def test_only_games_played_by_the_learner_alone_are_reported(
    open_atari: Callable[..., AtariVector], recorders: list[Recorder]
) -> None:
    """Against the emulator's own stream, game by game."""
    vector = open_atari(num_envs=4, max_start_steps=150)
    vector.reset(0)
    (recorder,) = recorders
    begun = len(recorder.steps)
    transitions = play(vector, 300)
    expected = []
    for env in range(4):
        game_began = max([0] + [at for at, mask in recorder.masks if mask[env]])
        score, frames, previous_frame, resetting = 0, 0, 0, False
        for t in range(game_began, len(recorder.steps)):
            reward, ends, _, lives, episode_frame = (column[env] for column in recorder.steps[t])
            if resetting:
                assert episode_frame < previous_frame
                game_began, score, frames, resetting = t, 0, 0, False
            else:
                score, frames, resetting = score + reward, frames + 1, ends and lives == 0
                if resetting and game_began >= begun:
                    expected.append((t - begun, env, score, frames))
            previous_frame = episode_frame
    assert sorted(episodes(transitions)) == sorted(expected) != []


def test_a_game_without_random_steps_counts_from_the_start(open_atari: Callable[..., AtariVector]) -> None:
    at, _, _, frames = episodes(play_from(open_atari(), 0, 300))[0]
    assert frames == at + 1


@pytest.mark.parametrize(
    "actions",
    [
        np.array([0, 4]),
        np.array([-1, 0]),
        np.array([0]),
        np.array([[0, 0]]),
        np.array([0.0, 1.0]),
        np.array([True, False]),
        np.array([2**40, 0]),
        [0, 1],
        3,
    ],
)
def test_invalid_actions_are_refused_in_one_line_and_change_nothing(actions: Any, breakout: AtariVector) -> None:
    with pytest.raises(ValueError, match="actions") as caught:
        breakout.send(actions)
    assert "\n" not in str(caught.value)
    assert breakout.step(np.array([0, 3])).valid.all()


@pytest.fixture(scope="module")
def breakout() -> Iterator[AtariVector]:
    vector = AtariVector(AtariConfig(game="Breakout", num_envs=2, max_start_steps=0), num_threads=1)
    vector.reset(0)
    yield vector
    vector.close()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_any_integers_will_do_as_actions(dtype: type, breakout: AtariVector) -> None:
    assert breakout.step(np.array([0, 9, 3, 9], dtype)[::2]).valid.all()


def test_send_and_recv_must_alternate(breakout: AtariVector) -> None:
    with pytest.raises(RuntimeError, match="send"):
        breakout.recv()
    breakout.send(np.array([0, 0]))
    for forbidden in (
        lambda: breakout.send(np.array([0, 0])),
        lambda: breakout.reset(0),
        lambda: breakout.step(np.array([0, 0])),
    ):
        with pytest.raises(RuntimeError, match="recv"):
            forbidden()
    assert breakout.recv().valid.all()


def test_send_and_recv_are_step(open_atari: Callable[..., AtariVector]) -> None:
    stepped, sent = open_atari(), open_atari()
    stepped.reset(0)
    sent.reset(0)
    for t in range(50):
        actions = np.random.default_rng(t).integers(4, size=2)
        sent.send(actions)
        assert np.array_equal(stepped.step(actions).observations, sent.recv().observations)


def test_nothing_works_before_reset_or_after_close(open_atari: Callable[..., AtariVector]) -> None:
    vector = open_atari()
    with pytest.raises(RuntimeError, match="reset"):
        vector.step(np.array([0, 0]))
    with pytest.raises(RuntimeError, match="reset"):
        vector.recv()
    vector.close()
    vector.close()
    for use in (lambda: vector.reset(0), lambda: vector.step(np.array([0, 0])), vector.recv):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_an_interrupted_step_is_never_continued(
    open_atari: Callable[..., AtariVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(atari.AtariVectorEnv):
        def recv(self) -> Any:
            super().recv()
            raise KeyboardInterrupt

    monkeypatch.setattr(atari, "AtariVectorEnv", Interrupted)
    vector = open_atari()
    vector.reset(0)
    with pytest.raises(KeyboardInterrupt):
        vector.step(np.array([0, 0]))
    for use in (lambda: vector.reset(0), lambda: vector.step(np.array([0, 0])), vector.recv):
        with pytest.raises(RuntimeError, match="interrupted"):
            use()
    vector.close()


def test_closing_and_leaving_between_send_and_recv_do_not_hang() -> None:
    code = """
import numpy as np
from rl_scaling.config import AtariConfig
from rl_scaling.envs import AtariVector
for close in (True, True, False):
    vector = AtariVector(AtariConfig(game="Pong", num_envs=3, max_start_steps=0), num_threads=2)
    vector.reset(0)
    vector.send(np.zeros(3, int))
    if close:
        vector.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_what_was_returned_is_the_callers_own(open_atari: Callable[..., AtariVector]) -> None:
    vector = open_atari(episode_emulator_frames=40)
    first = vector.reset(0)
    kept, copies = [first], [first.copy()]
    for step in play(vector, 30):
        for array in vars(step).values():
            assert array.flags.writeable  # torch warns of arrays that are not
            kept.append(array)
            copies.append(array.copy())
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_progress_grows_from_nothing_to_all(
    open_atari: Callable[..., AtariVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atari, "ENVS_PER_POOL", 2)
    told: list[tuple[int, int]] = []
    vector = open_atari(num_envs=5, max_start_steps=20, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 10)
    assert len(told) == 4  # once per pool
    assert told[-1] == (5, 10)
    vector.reset(0)
    done = [d for d, _ in told]
    assert done == sorted(set(done))
    assert told[-1] == (10, 10)


@pytest.mark.parametrize(("asked", "num_envs", "given"), [(None, 2, min(2, available_cpus())), (1, 2, 1), (9, 2, 2)])
def test_threads_are_never_more_than_cpus_or_environments(
    asked: int | None, num_envs: int, given: int, open_atari: Callable[..., AtariVector], recorders: list[Recorder]
) -> None:
    assert open_atari(num_envs=num_envs, num_threads=asked).num_threads == given
    assert recorders[0].kwargs["num_threads"] == given


def test_the_config_reaches_the_emulator(open_atari: Callable[..., AtariVector], recorders: list[Recorder]) -> None:
    open_atari("Q*bert", num_envs=1, sticky_action_probability=0.25, frame_skip=3)
    kwargs = recorders[0].kwargs
    assert recorders[0].rom == "qbert"
    assert (kwargs["repeat_action_probability"], kwargs["frameskip"]) == (0.25, 3)


def test_the_time_limit_is_in_emulator_frames(open_atari: Callable[..., AtariVector]) -> None:
    steps = play_from(open_atari("Pong", num_envs=1, frame_skip=3, episode_emulator_frames=40), 0, 30)
    assert [e[3] for e in episodes(steps)] == [14, 14]  # 40 / 3, rounded up
    assert [t for t, s in enumerate(steps) if s.truncated[0]] == [13, 28]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "Braekout"}, "nearest: Breakout"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"episode_emulator_frames": 0}, "episode_emulator_frames is 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(
    options: dict[str, Any], message: str, open_atari: Callable[..., AtariVector]
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_atari(**options)
    assert "\n" not in str(caught.value)


def test_a_negative_seed_is_refused(breakout: AtariVector) -> None:
    with pytest.raises(ConfigError, match="seed is -1"):
        breakout.reset(-1)


def test_nothing_is_printed_to_standard_output(
    open_atari: Callable[..., AtariVector], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What programs read there must stay clean, and ale-py announces where it looks for ROMs."""
    rom = get_rom_path("pong")
    assert rom is not None
    monkeypatch.setenv("ALE_ROMS_DIR", str(rom.parent))
    open_atari("Pong").reset(0)
    assert capfd.readouterr().out == ""
