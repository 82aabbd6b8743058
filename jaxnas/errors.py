"""The one kind of error that speaks to the person at the keyboard.

What the library raises on purpose is a `UserError`; any other exception that leaves it is a mistake of the library. A
script can therefore answer a `UserError` in one line, and show the traceback of everything else.
"""

__all__ = ["FileError", "UserError"]


class UserError(ValueError):
    """An argument, a setting or a file that cannot be used; the message names it, its value, and what is accepted.

    Code that uses the library may raise it too: a script (`jaxnas.run.script`) prints its message on one line and exits
    with 2.
    """


class FileError(UserError, OSError):
    """A file or a folder that cannot be read or written."""
