"""Data that are wrong, or lack something, are refused or named in one line before any step sees them."""

import re

import numpy as np
import pytest

from jaxnas.data import Data, Examples, load, shrink, split, split_at
from jaxnas.data.classes import share_out

IMAGES, LABELS = np.zeros([20, 4, 4, 1], np.uint8), np.arange(20) % 2


def _saved(tmp_path, images: np.ndarray, labels: np.ndarray, **arrays) -> str:
    np.savez(tmp_path / "a.npz", images=images, labels=labels, **arrays)
    return f"npz:{tmp_path / 'a.npz'}"


def _one_line(capsys, name: str) -> str:
    """Returns the one line on standard error, without the name of the data."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jaxnas: {name}: ")
    return line.removeprefix(f"jaxnas: {name}: ")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 2**32, "labels range from 4294967296 to 4294967297, expected 0 to at most 2147483647"),
        (LABELS - 2**32, "labels range from -4294967296 to -4294967295"),
        (LABELS.astype(np.uint64) + np.uint64(2**63), "labels range from 9223372036854775808 to"),
        (LABELS * (2**31 - 2), "16 training examples for 2147483647 classes, expected at least one for each"),
        (LABELS * 1000, "16 training examples for 1001 classes"),
        (LABELS.astype(float), "labels are float64 (20,), expected integers of shape [N]; convert them with"),
        (LABELS + 0.5, "labels are float64 (20,), expected integers of shape [N]$"),
        (np.where(LABELS == 0, np.nan, 1.0), "labels are float64 (20,), expected integers of shape [N]$"),
        (LABELS == 1, "labels are bool (20,), expected integers of shape [N]; convert them with"),
        (np.array(["cat", "dog"])[LABELS], "labels are <U3 (20,), expected integers of shape [N]; np.unique("),
        (LABELS[:, None], "labels are int64 (20, 1), expected integers of shape [N]; labels[:, 0] has that shape"),
        (np.eye(2, dtype=int)[LABELS], "labels are int64 (20, 2), expected integers of shape [N]; for one-hot rows"),
        (np.int64(1), "labels are int64 (), expected integers of shape [N]$"),
    ],
)
def test_labels_that_are_no_class_numbers(tmp_path, labels, message):
    pattern = re.escape(message.removesuffix("$")) + "$" * message.endswith("$")
    with pytest.raises(ValueError, match=pattern):
        load(_saved(tmp_path, IMAGES, np.asarray(labels)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint64, ">i4", ">i8"])
def test_labels_of_every_integer_type_are_the_same_classes(tmp_path, dtype):
    data = load(_saved(tmp_path, IMAGES, LABELS.astype(dtype)))
    assert data.train.labels.dtype == np.int32
    assert sorted(data.train.labels.tolist()) == [0] * 8 + [1] * 8


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (4, 16, 16)])
def test_square_channels_first_images_are_refused(tmp_path, shape):
    hint = re.escape(
        "expected [N, H, W, C]; channels-first images must be transposed with images.transpose(0, 2, 3, 1)"
    )
    with pytest.raises(ValueError, match=hint):
        load(_saved(tmp_path, np.zeros([20, *shape], np.uint8), LABELS))


def test_images_that_may_be_channels_first_are_loaded_with_a_line(tmp_path, capsys):
    name = _saved(tmp_path, np.zeros([20, 1, 128, 9], np.uint8), LABELS)
    assert load(name).image_shape == (1, 128, 9)
    assert _one_line(capsys, name).startswith(
        "images of shape (20, 1, 128, 9) are read as 1x128 pixels of 9 channels; "
    )


@pytest.mark.parametrize("shape", [(32, 32, 3), (4, 4, 5), (3, 3, 3), (8, 8, 16), (2, 9, 1)])
def test_other_images_are_loaded_silently(tmp_path, capsys, shape):
    assert load(_saved(tmp_path, np.zeros([20, *shape], np.uint8), LABELS)).image_shape == shape
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shape", [(0, 4, 1), (4, 4, 0), (4,), (4, 4, 1, 1)])
def test_images_without_pixels_or_of_other_axes_are_refused(tmp_path, shape):
    with pytest.raises(ValueError, match="images have shape"):
        load(_saved(tmp_path, np.zeros([20, *shape], np.uint8), LABELS))


def test_an_empty_test_part_and_too_few_classes(tmp_path):
    with pytest.raises(ValueError, match="the test part has no examples"):
        load(_saved(tmp_path, IMAGES, LABELS, test_images=IMAGES[:0], test_labels=LABELS[:0]))
    with pytest.raises(ValueError, match="labels range from 0 to 2, expected 0 to 1"):
        load(_saved(tmp_path, IMAGES, np.arange(20) % 3, num_classes=2))


def test_classes_without_examples_are_named_in_one_line(tmp_path, capsys):
    name = _saved(tmp_path, IMAGES, LABELS * 2, num_classes=4, test_images=IMAGES[:3], test_labels=np.array([1, 0, 0]))
    assert load(name).num_classes == 4
    expected = "none of the 20 training examples is of class 1, 3; none of the 3 test examples is of class 2, 3"
    assert _one_line(capsys, name) == expected


def test_many_missing_classes_are_counted(tmp_path, capsys):
    name = _saved(tmp_path, np.zeros([40, 4, 4, 1], np.uint8), np.arange(40) % 2, num_classes=32)
    load(name)
    assert "is of class 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 20 more; none of" in _one_line(capsys, name)


@pytest.mark.parametrize(
    ("images", "labels", "num_classes", "message"),
    [
        (IMAGES / 255, LABELS, 2, "images have dtype float64, expected uint8"),
        (IMAGES[..., 0], LABELS, 2, r"images have shape \(20, 4, 4\)"),
        (IMAGES, LABELS[:, None], 2, r"labels are int64 \(20, 1\)"),
        (IMAGES, LABELS[:19], 2, "20 images but 19 labels"),
        (IMAGES, LABELS, 2.0, "num_classes is 2.0, expected an integer"),
        (IMAGES, LABELS, True, "num_classes is True, expected an integer"),
        (IMAGES, LABELS, 21, "20 training examples for 21 classes"),
    ],
)
def test_data_made_by_hand_pass_the_same_door(images, labels, num_classes, message):
    with pytest.raises(ValueError, match=f"mine.*: {message}"):
        Data(Examples(images, labels), Examples(IMAGES, LABELS), num_classes=num_classes, name="mine")


def _of_classes(*counts: int) -> Data:
    """Images whose pixels tell their position, so many of each class, in random order."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    examples = Examples(images, labels)
    return Data(examples, examples, num_classes=len(counts), name="mine")


def _positions(examples: Examples) -> list[int]:
    return np.asarray(examples.images).ravel().tolist()


@pytest.mark.parametrize("sizes", [(0.5, 0.5), (60, 3), (3, 60), (4, 4)])
@pytest.mark.parametrize("seed", range(10))
def test_no_part_loses_a_class_of_two_examples(capsys, sizes, seed):
    data = _of_classes(115, 3, 2)
    search, again = (split(data, sizes=sizes, seed=seed) for _ in range(2))
    weights, policy = _positions(search.weights), _positions(search.policy)
    assert (len(weights), len(policy)) == tuple(int(120 * size) if size < 1 else size for size in sizes)
    assert len({*weights, *policy}) == len(weights) + len(policy)
    assert set(np.unique(search.weights.labels)) == set(np.unique(search.policy.labels)) == {0, 1, 2}
    assert (weights, policy) == (_positions(again.weights), _positions(again.policy))
    assert capsys.readouterr().err == ""


def test_the_split_differs_from_the_permutation_in_the_exchanged_examples_alone():
    data = _of_classes(115, 3, 2)
    moved = []
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(120)
        search = split(data, seed=seed)
        drawn = [order[:60].tolist(), order[60:].tolist()]
        lost = sum(3 - len(set(data.train.labels[part])) for part in drawn)
        got = [_positions(search.weights), _positions(search.policy)]
        assert sum(a != b for a, b in zip(drawn[0] + drawn[1], got[0] + got[1])) == 2 * lost
        moved.append(lost)
    assert 5 < sum(map(bool, moved)) < 15  # both cases occur


@pytest.mark.parametrize("name", ["digits", "synthetic:n=96,size=4,classes=3,channels=1"])
def test_balanced_data_keep_the_plain_permutation(name):
    data = load(name)
    num = len(data.train.labels)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(num)
        search = split(data, seed=seed)
        np.testing.assert_array_equal(search.weights.images, data.train.images[order[: num // 2]])
        np.testing.assert_array_equal(search.policy.labels, data.train.labels[order[num // 2 :][: num // 2]])


@pytest.mark.parametrize("sizes", [(0.5, 0.5), (3, 3), (20, 1)])
def test_a_class_that_cannot_be_in_both_parts_is_named(capsys, sizes):
    search = split(_of_classes(40, 1, 9), sizes=sizes)
    (line,) = capsys.readouterr().err.splitlines()
    for part, what in ((search.weights, "examples for the weights"), (search.policy, "examples for the policy")):
        absent = sorted({0, 1, 2} - set(np.asarray(part.labels).tolist()))
        phrase = f"none of the {len(part.labels)} {what} is of class {', '.join(map(str, absent))}"
        assert (phrase in line) == bool(absent)


def test_positions_given_by_hand_are_kept_and_what_they_leave_out_is_named(capsys):
    data = _of_classes(5, 5)
    of_class = [np.flatnonzero(data.train.labels == label) for label in (0, 1)]
    search = split_at(data, of_class[0], of_class[1])
    assert _positions(search.weights) == of_class[0].tolist()
    expected = (
        "none of the 5 examples for the weights is of class 1; none of the 5 examples for the policy is of class 0"
    )
    assert _one_line(capsys, "mine") == expected


def test_share_out_takes_unused_examples_first_and_leaves_its_argument_alone():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    order = np.arange(7)
    weights, policy = share_out(labels, order, (3, 3))
    assert (weights.tolist(), policy.tolist()) == ([0, 6, 4], [3, 2, 5])
    assert order.tolist() == list(range(7))


@pytest.mark.parametrize("sizes", [(True, 5), (0.5, float("nan")), (1.0, 0.0), (float("inf"), 5), 0.5, None, "ab"])
def test_sizes_that_are_none(sizes):
    with pytest.raises(ValueError, match=r"sizes is .*, expected two counts of at least 1"):
        split(_of_classes(10, 10), sizes=sizes)


@pytest.mark.parametrize("seed", [-1, 0.5, None, "0", float("nan"), True])
def test_seeds_that_are_none(seed):
    with pytest.raises(ValueError, match=r"seed is .*, expected"):
        split(_of_classes(10, 10), seed=seed)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (np.nan, 1.0, "mean is .*nan"),
        (125.0, 50.0, "mean is .*125.*, expected values of pixel / 255 between 0 and 1"),
        (0.5, np.nan, "std is .*nan"),
        (0.5, np.inf, "std is .*inf"),
    ],
)
def test_constants_in_other_units_are_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        split(_of_classes(10, 10), mean=[mean], std=[std])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad_to": 8.0, "factor": 2}, "pad_to is 8.0, expected an integer"),
        ({"pad_to": 8, "factor": 2.0}, "factor is 2.0, expected an integer"),
        ({"pad_to": True, "factor": 1}, "pad_to is True, expected an integer"),
        ({"pad_to": 8, "factor": -2}, "factor is -2, expected a divisor"),
    ],
)
def test_shrink_takes_integers(options, message):
    with pytest.raises(ValueError, match=message):
        shrink(IMAGES, **options)
    with pytest.raises(ValueError, match=r"images have shape \(20, 4, 4\), expected"):
        shrink(IMAGES[..., 0], pad_to=4, factor=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("n=1000000000000", "would take 768000000000000 bytes, expected at most 1073741824"),
        ("size=100000", "would take"),
        ("channels=99999999", "would take"),
        (f"seed={'9' * 5000}", "is not OPTION=INTEGER"),
        ("n=20,n=30", "an option is given twice"),
        ("n=-1", "'n=-1' is not OPTION=INTEGER"),
        ("size=²", "is not OPTION=INTEGER"),
    ],
)
def test_synthetic_options_that_are_huge_or_odd(options, message):
    with pytest.raises(ValueError, match=message):
        load(f"synthetic:{options}")


def test_data_that_do_not_fit_into_memory_are_one_error():
    def transform(images):
        raise MemoryError("Unable to allocate 1 EiB")

    with pytest.raises(ValueError, match=r"^digits does not fit into memory: Unable to allocate 1 EiB$"):
        load("digits", transform=transform)


def test_without_standard_error_nothing_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert load(_saved(tmp_path, IMAGES, LABELS, extra=LABELS)).num_classes == 2
    assert capsys.readouterr().out == ""
