"""Which files of a folder are images, and an account of all others.

An image that is lost silently changes a result silently, so whatever is passed over is counted in a `Left`.
"""

from collections.abc import Iterator
from pathlib import Path

from jaxnas.errors import UserError

__all__ = ["SUFFIXES", "Left", "described", "identity", "images_below", "pass_over", "scan"]

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

# Names that systems and tools leave behind, in lower case; names that begin with a dot are left behind or hidden.
SYSTEM = {
    "$recycle.bin",
    "__macosx",
    "__pycache__",
    "#recycle",
    "@eadir",
    "@recycle",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "lost+found",
    "system volume information",
    "thumbs.db",
}

# From a kind, as the noun and what follows it, to the names of those that were passed over.
Left = dict[tuple[str, str], list[str]]


def pass_over(left: Left, noun: str, where: str, *names: str) -> None:
    """Adds names to their kind; no names leave `left` as it is."""
    if names:
        left.setdefault((noun, where), []).extend(names)


def described(left: Left) -> str:
    """Returns how many of each kind there are, with the first name of each.

    Example:
      >>> described({("file", "ending in .txt"): ["a.txt", "b.txt"], ("system file", ""): ["Thumbs.db"]})
      '2 files ending in .txt (a.txt, ...), 1 system file (Thumbs.db)'
    """
    phrases = []
    for (noun, where), names in left.items():
        plural, more = ("s", ", ...") if len(names) > 1 else ("", "")
        phrases.append(" ".join(f"{len(names)} {noun}{plural} {where} ({names[0]}{more})".split()))
    return ", ".join(phrases)


def scan(name: str, folder: Path, left: Left) -> tuple[list[Path], list[Path]]:
    """Returns the folders and the image files right inside of a folder, each in the order of their names.

    Args:
      name: the name of the data set in messages.
      folder: the folder to look into; links are followed.
      left: the account to which everything else is added.

    Raises:
      UserError: if the folder cannot be read.
    """
    folders: list[Path] = []
    images: list[Path] = []
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{name}: {folder} cannot be read: {error.strerror}") from error
    for path in paths:
        is_folder = path.is_dir()
        if path.name.startswith(".") or path.name.lower() in SYSTEM:
            pass_over(left, "hidden or system folder" if is_folder else "hidden or system file", "", path.name)
        elif is_folder:
            folders.append(path)
        elif path.exists() and not path.is_file():
            pass_over(left, "pipe, socket or device", "", path.name)
        elif path.suffix.lower() in SUFFIXES:
            images.append(path)
        else:
            ending = f"ending in {path.suffix.lower()}" if path.suffix else "without an ending"
            pass_over(left, "file", ending, path.name)
    return folders, images


def images_below(
    name: str, folder: Path, left: Left, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Path]:
    """Yields the image files in a folder and in all folders below it, in the order of their paths.

    Args:
      name: the name of the data set in messages.
      folder: the folder to begin with; links are followed.
      left: the account to which everything else is added, and links that lead back to a folder above them.
      above: device and inode of all folders in which `folder` lies.

    Raises:
      UserError: if a folder cannot be read.
    """
    above = above | {identity(folder)}
    folders, images = scan(name, folder, left)
    inner = set(folders)
    for path in sorted([*folders, *images]):
        if path not in inner:
            yield path
        elif identity(path) in above:
            pass_over(left, "link", "back to a folder above it", path.name)
        else:
            yield from images_below(name, path, left, above)


def identity(path: Path) -> tuple[int, int]:
    """Returns device and inode, which two paths to one folder share."""
    status = path.stat()
    return status.st_dev, status.st_ino
