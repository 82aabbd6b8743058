"""Text as whole numbers: characters or words of a file, contiguous parts of it, and windows for recurrent networks.

`load_text` reads a file on the host and numbers its tokens; `windows`, `streams` and `window_at` cut the numbers into
inputs and next-token targets on the device. Letters for shapes: `N` tokens, `V` tokens of the vocabulary.
"""

import collections
import dataclasses
import gzip
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jax.typing import ArrayLike

from jaxnas.data.examples import check_whole
from jaxnas.data.notes import expanded, listed, note
from jaxnas.data.text_windows import Window, streams, window_at, windows
from jaxnas.errors import UserError

__all__ = ["Text", "Window", "load_text", "streams", "text_of", "window_at", "windows"]

Unit = Literal["characters", "words"]
PARTS = ("train", "validation", "test")
UNKNOWN = {"characters": "\ufffd", "words": "<unk>"}
LINE_END = "<eos>"  # the word that stands for the end of a line, as in the published word-level results
PENN = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    """A text in three parts, as numbers of its tokens; numpy arrays on the host.

    Attributes:
      train: the tokens that train the weights, int32 `[N]`; the vocabulary comes from these alone.
      validation: the tokens that judge architectures, int32 `[N]`.
      test: the tokens of the final judgement, int32 `[N]`, which nothing else may use.
      vocabulary: the `V` tokens in the order of their numbers.
      unit: what a token is, `"characters"` or `"words"`.
      name: the name of the text in messages.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    vocabulary: tuple[str, ...]
    unit: Unit
    name: str

    def encode(self, text: str) -> np.ndarray:
        """Returns the numbers of the tokens of a text, int32 `[N]`; a token outside of the vocabulary is unknown.

        Raises:
          UserError: if a token is not in the vocabulary, and the vocabulary has no unknown token either.
        """
        return _numbers(_tokens(text, self.unit), self.vocabulary, self.unit, self.name)

    def decode(self, numbers: ArrayLike) -> str:
        """Returns the text of token numbers `[N]`; words are joined by one space, and `<eos>` stays a word.

        Raises:
          UserError: if a number is not between 0 and `V - 1`.
        """
        array = np.asarray(numbers)
        if array.size and (array.min() < 0 or array.max() >= len(self.vocabulary)):
            last = len(self.vocabulary) - 1
            raise UserError(f"numbers range from {array.min()} to {array.max()}, expected 0 to {last}")
        return ("" if self.unit == "characters" else " ").join(self.vocabulary[number] for number in array.tolist())


def load_text(
    path: str | os.PathLike,
    *,
    unit: Unit = "characters",
    fractions: Sequence[float] | None = None,
    min_count: int = 1,
) -> Text:
    """Reads a text file, or the three files of Penn Treebank.

    Args:
      path: a file of UTF-8 text, plain or compressed by gzip; or a folder with the files `ptb.train.txt`,
        `ptb.valid.txt` and `ptb.test.txt`, each plain or with `.gz` at the end of its name.
      unit: what a token is; see `text_of`.
      fractions: the shares of the training, validation and test part of a single file; see `text_of`. The files of a
        folder are the parts already, so there it has to be left out.
      min_count: how often a token has to occur in the training part to be in the vocabulary; see `text_of`.

    Returns:
      The three parts and the vocabulary.

    Raises:
      UserError: if a file is missing, empty, no text or cannot be read, or a setting does not fit.
    """
    name = os.fspath(path)
    found = expanded("path", name)
    if not found.is_dir():
        return text_of(_read(found), unit=unit, fractions=fractions, min_count=min_count, name=name)
    if fractions is not None:
        raise UserError(f"fractions is {fractions}, expected none for {name}, where each part has a file")
    _check_settings(unit, min_count)
    parts = [_tokens(_read(_penn_file(found, file)), unit) for file in PENN.values()]
    return _numbered(parts, unit, min_count, name)


def text_of(
    text: str,
    *,
    unit: Unit = "characters",
    fractions: Sequence[float] | None = None,
    min_count: int = 1,
    name: str = "text",
) -> Text:
    """Divides a text into three contiguous parts and numbers its tokens.

    The vocabulary is that of the training part, in the order of the alphabet. Words include `<unk>`, which stands for
    every other word; characters include U+FFFD for that purpose only if there is such a character, and one line on
    standard error tells which.

    Args:
      text: the text.
      unit: `"characters"`, or `"words"`: what stands between white space, with `<eos>` for the end of a line.
      fractions: the shares of the tokens that go to the training, validation and test part, in this order from the
        beginning of the text; they add up to at most one. By default nine tenths and twice a twentieth.
      min_count: how often a token has to occur in the training part to be in the vocabulary, at least 1.
      name: the name of the text in messages.

    Returns:
      The three parts and the vocabulary.

    Raises:
      UserError: if the text is empty or too short for three parts, or a setting does not fit.

    Example:
      >>> text = text_of("abracadabra!" * 2, fractions=(0.5, 0.25, 0.25))
      >>> text.vocabulary, text.decode(text.validation)
      (('!', 'a', 'b', 'c', 'd', 'r'), 'abraca')
    """
    _check_settings(unit, min_count)
    shares = (0.9, 0.05, 0.05) if fractions is None else fractions
    if (
        not isinstance(shares, Sequence)
        or len(shares) != 3
        or not all(isinstance(share, float) and 0 < share < 1 for share in shares)
    ):
        raise UserError(f"fractions is {fractions}, expected three numbers between 0 and 1, such as (0.9, 0.05, 0.05)")
    if sum(shares) > 1 + 1e-9:
        raise UserError(f"fractions is {fractions}, expected three numbers that add up to at most 1")
    tokens = _tokens(text, unit)
    if not tokens:
        raise UserError(f"{name}: there are no {unit} in it")
    # 0.7 + 0.2 + 0.1 is below one by a rounding error
    ends = [int(end * len(tokens) + 1e-6) for end in np.cumsum(shares)]
    parts = [tokens[begin:end] for begin, end in zip([0, *ends], ends)]
    return _numbered(parts, unit, min_count, name)


def _penn_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise UserError(f"{folder}: {name} is missing; a folder needs {listed(PENN.values())}, or give a file")


def _read(path: Path) -> str:
    """Returns the text of a file, its lines ended by a line feed whatever the system that wrote it."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text, byte {error.start} is no UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged, gzip cannot read it: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if "\0" in text:
        raise UserError(f"{path}: not a text, character {text.index(chr(0))} is a NUL")
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check_settings(unit: str, min_count: int) -> None:
    if unit not in UNKNOWN:
        raise UserError(f"unit is {unit!r}, expected {' or '.join(map(repr, UNKNOWN))}")
    check_whole("min_count", min_count)
    if min_count < 1:
        raise UserError(f"min_count is {min_count}, expected at least 1")


def _tokens(text: str, unit: Unit) -> Sequence[str]:
    return text if unit == "characters" else text.replace("\n", f" {LINE_END} ").split()


def _numbered(parts: Sequence[Sequence[str]], unit: Unit, min_count: int, name: str) -> Text:
    """Returns the parts with the vocabulary of the first of them."""
    for part, tokens in zip(PARTS, parts):
        if not tokens:
            raise UserError(f"{name}: the {part} part has no {unit}; the text is too short, or its share too small")
    counts = collections.Counter(parts[0])
    known = {token for token, count in counts.items() if count >= min_count}
    unseen = set().union(*parts) - known
    if unit == "words" or unseen:
        known.add(UNKNOWN[unit])
    if unit == "characters" and unseen:
        codes = listed(f"U+{ord(token):04X}" for token in sorted(unseen))
        note(name, f"read as unknown, with fewer than min_count={min_count} in the training part: {codes}")
    vocabulary = tuple(sorted(known))
    train, validation, test = (_numbers(tokens, vocabulary, unit, name) for tokens in parts)
    return Text(train, validation, test, vocabulary, unit, name)


def _numbers(tokens: Iterable[str], vocabulary: Sequence[str], unit: Unit, name: str) -> np.ndarray:
    number = {token: i for i, token in enumerate(vocabulary)}
    unknown = number.get(UNKNOWN[unit])
    numbers = [number.get(token, unknown) for token in tokens]
    if None in numbers:
        raise UserError(f"{name}: the text has {unit} that are not in the vocabulary of {len(vocabulary)}")
    return np.array(numbers, np.int32)
