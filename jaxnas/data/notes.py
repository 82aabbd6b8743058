"""One line on standard error for what the user of a data set should know and no run has to stop for."""

from collections.abc import Iterable
from pathlib import Path

from jaxnas.errors import UserError
from jaxnas.standard_error import say

__all__ = ["expanded", "listed", "note"]

LISTED = 10  # names in one line; the others are counted


def note(name: str, text: str) -> None:
    """Prints `jaxnas: NAME: TEXT` as one line on standard error; prints nothing where there is no such stream.

    Args:
      name: the name of the data set in messages.
      text: a phrase that says what happened, and to which of the data.
    """
    say(f"jaxnas: {name}: {' '.join(text.split())}")


def listed(names: Iterable[object]) -> str:
    """Returns names with commas between them; from the eleventh on they are only counted.

    Example:
      >>> listed(range(3)), listed(range(12))
      ('0, 1, 2', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more')
    """
    texts = [str(name) for name in names]
    more = f" and {len(texts) - LISTED} more" if len(texts) > LISTED else ""
    return ", ".join(texts[:LISTED]) + more


def expanded(name: str, text: str) -> Path:
    """Returns a path in which a leading `~` stands for the home directory.

    Args:
      name: the name of the data set in messages.
      text: the path as the user wrote it; nothing needs to be there.

    Raises:
      UserError: if there is no such home directory, or the system cannot look at the path.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (RuntimeError, OSError) as error:
        raise UserError(f"{name}: {text} cannot be looked for: {error}") from error
    return path
