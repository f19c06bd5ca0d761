"""Observations as Gymnasium flattens them, images wherever their channels are, and actions inside their space."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Sequence, Space, Text, Tuple
from gymnasium.spaces.utils import flatten
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.config import ConfigError
from rl_scaling.envs import check_actions
from rl_scaling.envs.spaces import Actions, Observations

SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
LEAVES = st.one_of(
    st.builds(lambda shape: Box(-2, 3, shape), SHAPES),
    st.builds(lambda shape: Box(-2, 3, shape, np.float64), SHAPES),
    st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 5), st.integers(-2, 2)),
    st.builds(MultiDiscrete, st.lists(st.integers(1, 4), min_size=1, max_size=3)),
    st.builds(MultiBinary, st.integers(1, 4)),
)
NESTED = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.builds(Tuple, st.lists(parts, min_size=1, max_size=3)),
        st.builds(Dict, st.dictionaries(st.sampled_from("abc"), parts, min_size=1, max_size=3)),
    ),
    max_leaves=5,
).filter(lambda space: not isinstance(space, Box))


def batch_of(space: Space[Any], samples: list[Any]) -> tuple[Space[Any], Any]:
    """What a vector environment makes of the observations of its environments."""
    batched = batch_space(space, len(samples))
    return batched, concatenate(space, samples, create_empty_array(space, len(samples)))


def converted(space: Space[Any], samples: list[Any]) -> np.ndarray:
    batched, batch = batch_of(space, samples)
    observations = Observations(space, batched)
    found = observations(batch)
    assert found.shape == (len(samples), *observations.shape)
    assert found.dtype == observations.dtype
    assert found.flags.c_contiguous
    return found


def sampled(space: Space[Any], count: int) -> list[Any]:
    space.seed(0)
    return [space.sample() for _ in range(count)]


@given(space=NESTED, count=st.integers(1, 3))
def test_what_is_made_of_parts_is_flattened_as_by_gymnasium(space: Space[Any], count: int) -> None:
    samples = sampled(space, count)
    expected = np.stack([np.asarray(flatten(space, sample)) for sample in samples])
    np.testing.assert_array_equal(converted(space, samples), expected.astype(np.float32))


def test_pixels_among_other_numbers_are_from_0_to_1() -> None:
    space = Dict([("camera", Box(0, 255, (2, 2, 3), np.uint8)), ("inner", Tuple((Box(-9, 9, (2,)), Discrete(3))))])
    sample = {"camera": np.full((2, 2, 3), 51, np.uint8), "inner": (np.array([7, -7], np.float32), 1)}
    assert converted(space, [sample])[0].tolist() == pytest.approx([0.2] * 12 + [7, -7, 0, 1, 0])


def test_nothing_but_pixels_stay_bytes() -> None:
    space = Tuple((Box(0, 255, (2,), np.uint8), Box(0, 255, (1, 1), np.uint8)))
    found = converted(space, [(np.array([3, 200], np.uint8), np.array([[255]], np.uint8))])
    assert (found.dtype, found.tolist()) == (np.uint8, [[3, 200, 255]])


def image(height: int, width: int, channels: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.arange(height * width * channels).reshape(channels, height, width).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
@pytest.mark.parametrize(
    ("height", "width", "channels"), [(9, 7, 3), (7, 9, 1), (8, 8, 3), (6, 6, 11), (6, 7, 4), (84, 84, 4)]
)
def test_channels_come_first_wherever_they_were(height: int, width: int, channels: int, dtype: Any) -> None:
    """Boards with more planes than squares on a side are told from pixels by their square."""
    first = image(height, width, channels, dtype)
    for given_image in (first, np.moveaxis(first, 0, -1)):
        space = Box(0, 1 if dtype is bool else 255, given_image.shape, dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]
        found = converted(space, [given_image, given_image])
        np.testing.assert_array_equal(found[1], first.astype(np.uint8 if dtype is np.uint8 else np.float32))


def test_stacks_of_images_put_their_channels_together() -> None:
    frames = np.stack([image(9, 7, 3) + k for k in range(4)])
    expected = frames.reshape(12, 9, 7)
    for stack in (frames, np.moveaxis(frames, 1, -1)):
        np.testing.assert_array_equal(converted(Box(0, 255, stack.shape, np.uint8), [stack])[0], expected)


def test_grey_images_have_one_channel_and_other_tables_stay_as_they_are() -> None:
    assert converted(Box(0, 255, (9, 7), np.uint8), [image(9, 7, 1)[0]]).shape == (1, 1, 9, 7)
    assert converted(Box(0, 255, (4, 7)), [np.zeros((4, 7), np.float32)]).shape == (1, 4, 7)
    assert converted(Box(0, 255, (), np.float64), [np.array(3.5)]).tolist() == [[3.5]]


def test_what_is_returned_is_a_copy() -> None:
    space = Box(0, 1, (3,))
    batch = np.zeros((2, 3), np.float32)
    found = Observations(space, batch_space(space, 2))(batch)
    batch[:] = 1
    assert not found.any()


@pytest.mark.parametrize(
    ("space", "named"),
    [
        (Text(5), "Text("),
        (Dict({"place": Discrete(3), "order": Text(9)}), "with Text("),
        (Tuple((Discrete(2), Sequence(Discrete(2)))), "with Sequence("),
        (Graph(Box(0, 1, (2,)), None), "Graph("),
        (Dict({}), "0 numbers"),
        (Box(0, 1, (0,)), "0 numbers"),
        (Discrete(10**9), "1,000,000,000 numbers"),
    ],
    ids=["text", "text in a dictionary", "sequence", "graph", "nothing", "empty", "too many"],
)
def test_what_is_no_fixed_number_of_numbers_is_refused_by_name(space: Space[Any], named: str) -> None:
    with pytest.raises(ConfigError, match="observations are") as refused:
        Observations(space, space)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


ACTIONS = st.one_of(
    st.builds(lambda n, start: Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3)),
    st.builds(
        lambda sizes, start: MultiDiscrete(np.array(sizes), start=np.full(np.shape(sizes), start)),
        st.sampled_from([[2], [3, 4], [[2, 3], [4, 1]]]),
        st.integers(-2, 2),
    ),
    st.builds(MultiBinary, st.sampled_from([1, 4, [2, 3]])),
    st.builds(
        lambda low, shape, dtype: Box(low, low + 2, shape, dtype),
        st.floats(-3, 3, width=32),
        SHAPES,
        st.sampled_from([np.float32, np.float64]),
    ),
)


@given(native=ACTIONS, seed=st.integers(0, 100))
def test_an_environment_is_given_actions_of_its_own_space(native: Space[Any], seed: int) -> None:
    actions, random = Actions(native), np.random.default_rng(seed)
    space = actions.space
    shape = (3, *(space.shape or ()))
    if isinstance(space, Box):
        assert len(space.shape) == 1
        chosen = (4 * random.normal(size=shape)).astype(np.float32)
    else:
        most = getattr(space, "nvec", getattr(space, "n", 2) if isinstance(space, Discrete) else 2)
        chosen = random.integers(0, most, size=shape)
    check_actions(chosen, 3, space)
    own = actions(chosen)
    assert all(native.contains(action if isinstance(native, Discrete) else np.asarray(action)) for action in own)
    if isinstance(native, Box):
        assert isinstance(space, Box)
        np.testing.assert_allclose(own.reshape(3, -1), np.clip(chosen, space.low, space.high), rtol=1e-6)
    else:
        own_first = native.start if isinstance(native, Discrete | MultiDiscrete) else 0
        np.testing.assert_array_equal((own - own_first).reshape(shape), chosen)


def test_numbers_are_clipped_and_what_is_none_becomes_the_nearest_to_0() -> None:
    actions = Actions(Box(np.array([-1, 2], np.float32), np.array([1, np.inf], np.float32)))
    given_numbers = np.array([[0.5, 9.0], [-7.0, 0.0], [np.nan, np.nan], [np.inf, np.inf]], np.float32)
    assert actions(given_numbers).tolist() == [[0.5, 9.0], [-1.0, 2.0], [0.0, 2.0], [1.0, np.inf]]


@pytest.mark.parametrize(
    "space",
    [Box(0, 255, (3,), np.uint8), Box(0, 1, (0,)), Dict({"a": Discrete(2)}), Tuple((Discrete(2),)), Text(3)],
    ids=["bytes", "nothing", "dictionary", "tuple", "text"],
)
def test_other_actions_are_refused_by_name(space: Space[Any]) -> None:
    with pytest.raises(ConfigError, match="actions are") as refused:
        Actions(space)
    assert str(space)[:20] in str(refused.value)
    assert "\n" not in str(refused.value)
