"""Child functions of the tests of farms, in a module that a worker imports in no time."""

import os
import signal
from pathlib import Path

FINE, RAISES, DIES_ONCE, DIES, LEAVES, RETURNS_TEXT, INFINITE = range(7)


def child(arch, seed, config, child_id=None, origin=None):
    """Does what its architecture says, after a line in a file that names the architecture and the process."""
    conduct, number = map(int, arch["layer"])
    folder = Path(config["folder"])
    with (folder / "calls.txt").open("a") as file:
        file.write(f"{number} {os.getpid()}\n")
    if conduct == RAISES:
        raise ValueError(f"no layer {number}\nand more")
    if conduct == DIES_ONCE and not (folder / f"died_{number}").exists():
        (folder / f"died_{number}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if conduct == DIES:
        os.kill(os.getpid(), signal.SIGKILL)
    if conduct == LEAVES:
        raise SystemExit(3)
    if conduct == RETURNS_TEXT:
        return "text"
    error = float("inf") if conduct == INFINITE else number / 7 + seed / 2**31
    return {"error": error, "macs": 10 * number, "lineage": [child_id, origin]}


def dooming_child(arch, seed, config):
    """A child that kills the script if its seed stands in the file `doom`, beside the number of the process."""
    doom = Path(config["folder"]) / "doom"
    try:
        return child(arch, seed, config)
    finally:
        doomed, script = map(int, doom.read_text().split()) if doom.exists() else (-1, -1)
        if seed == doomed:
            os.kill(script, signal.SIGKILL)


def calls(folder) -> list[int]:
    """The numbers of the children that were begun in a folder, in the order of beginning."""
    return [int(line.split()[0]) for line in (Path(folder) / "calls.txt").read_text().splitlines()]


def processes(folder) -> set[int]:
    """The processes in which children were begun."""
    return {int(line.split()[1]) for line in (Path(folder) / "calls.txt").read_text().splitlines()}
