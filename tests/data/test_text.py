"""Texts become numbers by a vocabulary of the training part alone, and windows whose targets are the next tokens."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.data.text import load_text, streams, text_of, window_at, windows
from jaxnas.errors import UserError

HALVES = (0.5, 0.25, 0.25)


def _parts(text):
    return [text.decode(part) for part in (text.train, text.validation, text.test)]


def test_characters_are_numbered_in_the_order_of_the_alphabet():
    text = text_of("banana\nb" + "ba n" + "an\na", fractions=HALVES)
    assert text.vocabulary == ("\n", "a", "b", "n", "\ufffd")
    assert text.train.tolist() == [2, 1, 3, 1, 3, 1, 0, 2]
    assert _parts(text) == ["banana\nb", "ba\ufffdn", "an\na"]


def test_words_are_what_stands_between_white_space_and_lines_have_an_end():
    text = text_of(" the cat \n\n the\tdog's \n", unit="words", fractions=(0.6, 0.2, 0.2))
    assert text.vocabulary == ("<eos>", "<unk>", "cat", "the")
    assert _parts(text) == ["the cat <eos> <eos>", "the", "<unk> <eos>"]
    assert [part.dtype for part in (text.train, text.validation, text.test)] == [np.int32] * 3


@pytest.mark.parametrize(
    ("fractions", "expected"),
    [
        (None, ["abcdefghijklmnopqr", "s", "t"]),
        ((0.7, 0.2, 0.1), ["abcdefghijklmn", "opqr", "st"]),
        ([0.3, 0.3, 0.1], ["abcdef", "ghijkl", "mn"]),
    ],
)
def test_parts_follow_each_other_in_the_text(capsys, fractions, expected):
    text = text_of("abcdefghijklmnopqrst", fractions=fractions)
    assert [len(part) for part in (text.train, text.validation, text.test)] == [len(part) for part in expected]
    # An alphabet without repeats: all characters after the training part are unknown.
    assert _parts(text) == [expected[0], *("\ufffd" * len(part) for part in expected[1:])]
    assert "in the training part: U+00" in capsys.readouterr().err


def test_only_the_training_part_makes_the_vocabulary(capsys):
    text = text_of("aabb" + "ab" + "éb", fractions=HALVES, name="mine")
    assert text.vocabulary == ("a", "b", "\ufffd")
    assert text.decode(text.test) == "\ufffdb"
    error = capsys.readouterr().err
    assert error.startswith("jaxnas: mine: read as unknown")
    assert error.endswith("U+00E9\n")


def test_characters_have_no_unknown_where_none_is_needed(capsys):
    text = text_of("abab" + "ab" + "ab", fractions=HALVES)
    assert text.vocabulary == ("a", "b")
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="text: the text has characters that are not in the vocabulary of 2"):
        text.encode("abc")


def test_words_always_have_an_unknown_and_one_that_is_written_is_the_same():
    assert text_of("a b a b", unit="words", fractions=HALVES).vocabulary == ("<unk>", "a", "b")
    text = text_of("a <unk> zebra <unk>", unit="words", fractions=HALVES)
    assert text.vocabulary == ("<unk>", "a")
    assert text.validation.tolist() == text.test.tolist() == [0]


def test_rare_tokens_are_unknown():
    text = text_of("a b a c a b c b " + "c c c c d a a a", unit="words", fractions=HALVES, min_count=3)
    assert text.vocabulary == ("<unk>", "a", "b")
    assert text.decode(text.train) == "a b a <unk> a b <unk> b"


@pytest.mark.parametrize("unit", ["characters", "words"])
def test_encode_is_the_inverse_of_decode(unit):
    text = text_of("to be or not to be\n" * 8, unit=unit)
    again = text.encode("to be or not\n")
    assert again.dtype == np.int32
    assert text.decode(again) == {"characters": "to be or not\n", "words": "to be or not <eos>"}[unit]
    for wrong in ([0, len(text.vocabulary)], [-1]):
        with pytest.raises(UserError, match=f"expected 0 to {len(text.vocabulary) - 1}"):
            text.decode(wrong)


@pytest.mark.parametrize("write", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
def test_a_file_is_read_as_its_text(tmp_path, write):
    path = tmp_path / "poem"
    path.write_bytes(write("\ufeffça va\r\nça va\rça va\nça va\n".encode()))
    found, expected = load_text(path, fractions=HALVES), text_of("ça va\n" * 4, fractions=HALVES)
    assert found.vocabulary == expected.vocabulary
    assert _parts(found) == _parts(expected)
    assert found.name == str(path)


@pytest.mark.parametrize("packed", [(), ("valid",), ("train", "valid", "test")])
def test_the_three_files_of_penn_treebank(tmp_path, packed):
    lines = {"train": " no it was n't <unk> \n no N \n", "valid": " it was black \n", "test": " no \n"}
    for part, text in lines.items():
        plain = tmp_path / f"ptb.{part}.txt"
        if part in packed:
            plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            plain.write_text(text)
    text = load_text(tmp_path, unit="words")
    assert text.vocabulary == ("<eos>", "<unk>", "N", "it", "n't", "no", "was")
    assert _parts(text) == ["no it was n't <unk> <eos> no N <eos>", "it was <unk> <eos>", "no <eos>"]
    assert load_text(tmp_path, unit="words", min_count=2).vocabulary == ("<eos>", "<unk>", "no")
    with pytest.raises(UserError, match=r"fractions is \(0.5, 0.25, 0.25\), expected none for .* each part has a file"):
        load_text(tmp_path, fractions=HALVES)
    with pytest.raises(UserError, match="unit is 'letters', expected 'characters' or 'words'"):
        load_text(tmp_path, unit="letters")


def _refused(path, data=None, **settings):
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        load_text(path, **settings)
    message = str(caught.value)
    assert message.startswith(str(path)), message
    assert "\n" not in message
    return message


def test_files_that_are_no_text(tmp_path):
    path, packed = tmp_path / "a.txt", gzip.compress(b"words and words " * 9)
    assert "No such file" in _refused(path)
    assert "is empty" in _refused(path, b"")
    assert "is empty" in _refused(path, gzip.compress(b" \n "))
    assert "byte 3 is no UTF-8" in _refused(path, b"abc\xff\xfe")
    assert "character 1 is a NUL" in _refused(path, b"a\0b")
    assert "damaged" in _refused(path, packed[:-12])
    assert "damaged" in _refused(path, b"\x1f\x8bno gzip at all")
    assert "damaged" in _refused(path, packed[:12] + b"\xff\xff" + packed[14:])
    assert "the validation part has no characters" in _refused(path, b"too short")
    assert "the validation part has no words" in _refused(path, b"just three words", unit="words")
    assert "ptb.train.txt is missing" in _refused(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unit": "letters"}, "unit is 'letters', expected 'characters' or 'words'"),
        ({"fractions": (0.5, 0.5)}, r"fractions is \(0.5, 0.5\), expected three numbers between 0 and 1"),
        ({"fractions": (8, 1, 1)}, "expected three numbers between 0 and 1"),
        ({"fractions": 0.5}, "fractions is 0.5, expected three numbers between 0 and 1"),
        ({"fractions": (0.9, 0.1, 0.1)}, "add up to at most 1"),
        ({"fractions": (0.5, 0.5, 0.0)}, "expected three numbers between 0 and 1"),
        ({"min_count": 0}, "min_count is 0, expected at least 1"),
        ({"min_count": 1.5}, "min_count is 1.5, expected an integer"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        text_of("some words and more " * 9, **settings)


def test_an_empty_text():
    with pytest.raises(UserError, match="text: there are no words in it"):
        text_of(" \t ", unit="words")
    with pytest.raises(UserError, match="poem: there are no characters in it"):
        text_of("", name="poem")


@pytest.mark.parametrize(("num", "count"), [(13, 3), (16, 3), (17, 4), (5, 1)])
def test_windows_have_the_next_tokens_as_targets(num, count):
    found = windows(np.arange(num), 4)
    assert found.inputs.shape == found.targets.shape == (count, 4)
    np.testing.assert_array_equal(found.inputs, np.arange(4 * count).reshape(count, 4))
    np.testing.assert_array_equal(found.targets, found.inputs + 1)
    assert found.inputs.dtype == found.targets.dtype == jnp.int32


@pytest.mark.x64
def test_batches_continue_each_other_and_begin_again():
    rows = streams(np.arange(100, 147), 3)  # 15 tokens in each, two are left over
    assert (rows.shape, rows.dtype, rows[:, 0].tolist()) == ((3, 15), jnp.int32, [100, 115, 130])
    take = jax.jit(window_at, static_argnums=2)
    found = [take(rows, step, 4) for step in range(4)]
    np.testing.assert_array_equal(jnp.concatenate([window.inputs for window in found[:3]], 1), rows[:, :12])
    np.testing.assert_array_equal(jnp.concatenate([window.targets for window in found[:3]], 1), rows[:, 1:13])
    np.testing.assert_array_equal(found[3].inputs, found[0].inputs)
    assert found[0].inputs.dtype == found[0].targets.dtype == jnp.int32
    # A window may take all tokens but the one that is its last target.
    np.testing.assert_array_equal(window_at(rows, 5, 14).targets, rows[:, 1:])


def test_windows_are_drawn_inside_a_scan():
    rows = streams(np.arange(20), 2)
    _, inputs = jax.lax.scan(lambda step, _: (step + 1, window_at(rows, step, 3).inputs), jnp.int32(0), None, 3)
    assert inputs[:, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: windows(np.arange(4), 4), "tokens has 4 tokens, expected at least 5 for a window of length 4"),
        (lambda: windows(np.arange(4), 0), "length is 0, expected at least 1"),
        (lambda: windows(np.arange(4), 2.0), "length is 2.0, expected an integer"),
        (lambda: windows(np.ones([2, 4], int), 2), r"tokens has shape \(2, 4\), expected \[N\]"),
        (lambda: streams(np.ones([2, 4], int), 2), r"tokens has shape \(2, 4\), expected \[N\]"),
        (lambda: streams(np.arange(7), 4), "batch_size is 4, expected 1 to 3 for 7 tokens"),
        (lambda: streams(np.arange(7), 0), "batch_size is 0, expected 1 to 3 for 7 tokens"),
        (lambda: streams(np.arange(7), True), "batch_size is True, expected an integer"),
        (lambda: window_at(streams(np.arange(8), 2), 0, 4), "every stream has 4 tokens, expected at least 5"),
    ],
)
def test_windows_that_do_not_fit(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_tiny_shakespeare(data_dir):
    path = data_dir / "text" / "tinyshakespeare.txt.gz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    text = load_text(path)
    assert sum(map(len, (text.train, text.validation, text.test))) == 1_115_394
    assert len(text.vocabulary) == 65
    assert text.decode(text.train[:14]) == "First Citizen:"
    words = load_text(path, unit="words", min_count=2)
    assert (words.vocabulary.count("<unk>"), words.vocabulary.count("<eos>")) == (1, 1)
    assert 0 < np.mean(words.train == words.vocabulary.index("<unk>")) < 0.1
