"""Splits are disjoint, repeatable, and leave no way from a search to the test examples."""

import gc
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.data import CIFAR10_MEAN, CIFAR10_STD, Data, Examples, load, split, split_at, statistics


def _numbered(num: int = 100, num_test: int = 20) -> Data:
    """Images whose pixels tell their position; those of the test part start at 200."""

    def part(numbers: np.ndarray) -> Examples:
        images = np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (len(numbers), 2, 2, 3))
        return Examples(images.copy(), (numbers % 5).astype(np.int32))

    return Data(part(np.arange(num)), part(200 + np.arange(num_test)), num_classes=5, name="numbered")


def _positions(examples: Examples) -> list[int]:
    return np.asarray(examples.images)[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((0.5, 0.5), (50, 50)), ((60, 30), (60, 30)), ((0.29, 0.1), (29, 10)), ((0.7, 0.3), (70, 30)), ((1, 99), (1, 99))],
)
def test_parts_are_disjoint_and_of_the_size_asked_for(sizes, expected):
    data = _numbered()
    search = split(data, sizes=sizes)
    weights, policy = _positions(search.weights), _positions(search.policy)
    assert (len(weights), len(policy)) == expected
    assert len(set(weights) | set(policy)) == sum(expected)
    assert set(weights) | set(policy) <= set(range(100))
    for part, positions in ((search.weights, weights), (search.policy, policy)):
        np.testing.assert_array_equal(part.labels, np.array(positions) % 5)
        assert (part.images.dtype, part.labels.dtype) == (jnp.uint8, jnp.int32)


def test_the_seed_fixes_the_split():
    data = _numbered()
    first, again, other = (split(data, seed=seed) for seed in (3, 3, 4))
    assert _positions(first.weights) == _positions(again.weights)
    assert _positions(first.policy) == _positions(again.policy)
    assert set(_positions(first.weights)) != set(_positions(other.weights))


@pytest.mark.parametrize(
    "sizes",
    [(51, 50), (0, 50), (-1, 50), (0.6, 0.5), (0.0, 0.5), (0.001, 0.5), (1.0, 0.5), (0.5, 50), (50,), (1, 1, 1)],
)
def test_sizes_that_do_not_fit(sizes):
    with pytest.raises(ValueError, match="expected two counts of at least 1 that add up to at most 100") as caught:
        split(_numbered(), sizes=sizes)
    assert f"sizes is {sizes}" in str(caught.value)


class _Trap:
    """Stands for test examples that must not be touched."""

    def __getattribute__(self, name):
        raise AssertionError(f"the test examples were touched: {name}")

    def __iter__(self):
        raise AssertionError("the test examples were read")

    def __len__(self):
        raise AssertionError("the test examples were counted")

    def __getitem__(self, index):
        raise AssertionError("the test examples were read")


def _reachable(root: object) -> set[int]:
    """Returns the ids of all objects that can be reached from `root`, without going through code."""
    seen: set[int] = set()
    front = [root]
    while front:
        thing = front.pop()
        if id(thing) not in seen and not isinstance(thing, type | types.ModuleType | types.FunctionType):
            seen.add(id(thing))
            front += gc.get_referents(thing)
            front += [thing.base] if isinstance(thing, np.ndarray) else []
    return seen


def test_a_search_cannot_reach_the_test_examples():
    data = _numbered()
    search = split(data)
    for part in (search.weights, search.policy):
        assert max(_positions(part)) < 200
    forbidden = {id(data), id(data.test), *map(id, data.test)}
    assert not forbidden & _reachable(search)
    assert forbidden <= _reachable([data])  # the walk does find what is there
    object.__setattr__(data, "test", _Trap())
    for build in (split, lambda trapped: split_at(trapped, [0], [1])):
        again = build(data)
        assert set(vars(again)) == {"weights", "policy", "mean", "std", "num_classes", "image_shape"}


@pytest.mark.parametrize("name", ["digits", "synthetic:n=30,size=8"])
def test_statistics_are_those_of_the_training_part(name):
    data = load(name)
    pixels = data.train.images.astype(np.float64) / 255
    mean, std = statistics(data.train)
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std((0, 1, 2)), rtol=1e-6)
    search = split(data)
    np.testing.assert_array_equal(search.mean, mean)
    np.testing.assert_array_equal(search.std, std)
    assert search.mean.dtype == search.std.dtype == jnp.float32


def test_statistics_of_a_constant_channel_and_of_many_chunks():
    images = np.full([9000, 1, 1, 1], 51, np.uint8)
    mean, std = statistics(Examples(images, np.zeros(9000, np.int32)))
    np.testing.assert_allclose([mean[0], std[0]], [0.2, 1 / 255], rtol=1e-6)


def test_constants_of_a_paper():
    search = split(_numbered(), mean=CIFAR10_MEAN, std=CIFAR10_STD)
    np.testing.assert_allclose(search.mean, [0.4914, 0.4822, 0.4465])
    np.testing.assert_allclose(search.std, [0.2470, 0.2435, 0.2616])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5, 0.5, 0.5)}, "expected both or neither"),
        ({"mean": (0.5,), "std": (0.5,)}, r"mean has shape \(1,\), expected \(3,\)"),
        ({"mean": (0.5,) * 3, "std": (0.5, 0.0, 0.5)}, "expected values above 0"),
    ],
)
def test_constants_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        split(_numbered(), **options)


def test_split_at_takes_the_positions_in_order():
    search = split_at(_numbered(), [5, 3, 9], np.array([4]))
    assert _positions(search.weights) == [5, 3, 9]
    assert _positions(search.policy) == [4]


@pytest.mark.parametrize(
    ("weights", "policy", "message"),
    [
        ([1, 2], [2, 3], "weights and policy repeat 1 of 4 positions"),
        ([1, 1], [2, 3], "weights and policy repeat 1 of 4 positions"),
        ([0, 100], [2], "weights has positions 0 to 100, expected 0 to 99"),
        ([0], [-1], "policy has positions -1 to -1"),
        ([0], [], "policy is float64"),
        ([0.5], [1], "weights is float64"),
    ],
)
def test_split_at_refuses(weights, policy, message):
    with pytest.raises(ValueError, match=message):
        split_at(_numbered(), weights, policy)


def test_search_data_is_a_pytree_with_static_sizes():
    search = split(_numbered())
    assert len(jax.tree.leaves(search)) == 6

    @jax.jit
    def shape(given):
        return jnp.zeros([given.num_classes, *given.image_shape])

    assert shape(search).shape == (5, 2, 2, 3)
