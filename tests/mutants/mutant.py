"""What a planted mistake is."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A mistake that an engineer could make, in one place.

    Attributes:
      name: in the table.
      what: the mistake, in a few words.
      file: where, relative to the root of the repository.
      old: the right text, which stands in the file exactly once.
      new: the wrong text in its place.
      tests: files, or tests, of which one has to fall.
    """

    name: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
