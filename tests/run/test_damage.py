"""Whatever happens to a file of a work directory: the same bits and rows in the end, or one line that says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxnas.run import Run, Saving
from tests.run.toy import Config, digest

STEPS = 12


class Crash(Exception):
    """The end of a process."""


def go(path: Path, *, stop: int | None = None, seed: int = 0) -> dict:
    """Two phases, a value, a file; stopped at that step of the second phase as by a crash."""

    class Crashing:
        def write(self, step, metrics):
            if (metrics["phase"], step) == ("retrain", stop):
                raise Crash

    def step(key, x, data):
        del data
        return x - 0.1 * x + 0.01 * np.asarray(jax.random.normal(key, x.shape)), {"loss": np.sum(x * x)}

    def init(key, data):
        return np.asarray(jax.random.normal(key, (3,))) + data

    with Run(path, Config(), seed=seed, saving=Saving(1e9, steps=5, keep=2), writers=[Crashing()], chunk=4) as run:
        if run.result is None:
            x = run.steps("search", init, step, STEPS, data=np.ones(3, np.float32))
            found = run.once("found", lambda: [float(v) for v in x])
            y = run.steps("retrain", init, step, STEPS, data=x)
            run.save_json("architecture.json", {"arch": found, "digest": digest(y)})
            (run.path / "network.bin").write_bytes(y.tobytes())
            run.finish({"system": "toy", "digest": digest((x, y)), "found": found})
        return run.result


def essentials(path: Path) -> dict:
    """What a run leaves behind, without times."""
    result = json.loads((path / "result.json").read_text())
    files = ("metrics.jsonl", "architecture.json", "network.bin", "config.yaml")
    times = ("wall_seconds", "compile_seconds", "commit")
    return {
        "result": {name: value for name, value in result.items() if name not in times},
        **{name: (path / name).read_bytes() for name in files},
        **{name: json.loads((path / name).read_text()) for name in ("run.json", "results/found.json")},
    }


@pytest.fixture(scope="module")
def states(tmp_path_factory) -> dict[str, Path]:
    """The directories of a finished run, and of one that crashed three steps after a checkpoint of its second phase."""
    folder = tmp_path_factory.mktemp("states")
    go(folder / "finished")
    with pytest.raises(Crash):
        go(folder / "stopped", stop=9)
    return {name: folder / name for name in ("finished", "stopped")}


def change(fn: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(fn(path.read_bytes()))

    return damage


def flipped(place: float) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        at = int(place * (len(content) - 1))
        return content[:at] + bytes([content[at] ^ 0x01]) + content[at + 1 :]

    return flip


def lines(fn: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    return lambda content: b"".join(fn(content.splitlines(keepends=True)))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "emptied": change(lambda content: b""),
    "halved": change(lambda content: content[: len(content) // 2]),
    "no end of line": change(lambda content: content[:-1]),
    "last line lost": change(lines(lambda rows: rows[:-1])),
    "first line lost": change(lines(lambda rows: rows[1:])),
    "line lost inside": change(lines(lambda rows: rows[: len(rows) // 3] + rows[len(rows) // 3 + 1 :])),
    "line doubled": change(lines(lambda rows: [*rows[:2], *rows[1:]])),
    "last line doubled": change(lines(lambda rows: [*rows, *rows[-1:]])),
    "all doubled": change(lambda content: 2 * content),
    "lines in reverse": change(lines(lambda rows: rows[::-1])),
    "rubbish": change(lambda content: content + b"rubbish\n"),
    "rubbish inside": change(lines(lambda rows: [*rows[:1], b"{]\n", *rows[1:]])),
    "no text": change(lambda content: content + b"\xff\xfe\x00\n"),
    "nothing but noise": change(lambda content: bytes(range(256))),
    "list": change(lambda content: b"[]\n"),
    "null": change(lambda content: b"null\n"),
    "object": change(lambda content: b"{}\n"),
    "brackets": change(lambda content: b"[" * 100_000 + b"\n"),
    "first bytes flipped": change(flipped(0.0)),
    "bit flipped early": change(flipped(0.2)),
    "bit flipped inside": change(flipped(0.5)),
    "bit flipped late": change(flipped(0.9)),
    "deleted": Path.unlink,
}
FILES = (
    "metrics.jsonl",
    "timing.jsonl",
    "config.yaml",
    "run.json",
    "seal.json",
    "result.json",
    "results/found.json",
    "architecture.json",
    "network.bin",
)
QUICK = ("halved", "rubbish inside", "bit flipped inside", "deleted")


def check(path: Path, whole: dict, capfd) -> str:
    """Starts the damaged run again: what comes out is `whole`, or one line says what is not."""
    capfd.readouterr()
    refused = None
    try:
        go(path)
    except ValueError as error:
        refused = str(error)
    shown = capfd.readouterr().err
    assert "Traceback" not in shown
    told = [line for line in shown.splitlines() if str(path) in line or "metrics.jsonl" in line]
    if refused is not None:
        assert "\n" not in refused
        assert str(path) in refused
        return refused
    found = essentials(path)
    if found != whole:
        assert [line for line in told if "lost" in line], shown
        assert found["result"].pop("incomplete_metrics")
        assert {**found, "metrics.jsonl": whole["metrics.jsonl"]} == {
            **whole,
            "results/found.json": found["results/found.json"],
        }
    capfd.readouterr()
    go(path)  # whatever it was, the next start finds nothing any more
    assert capfd.readouterr().err == ""
    return "; ".join(told)


def damaged(states: dict[str, Path], tmp_path: Path, capfd, state: str, name: str, titles: tuple[str, ...]) -> None:
    whole = essentials(states["finished"])
    for title in titles if (states[state] / name).exists() else ():
        path = tmp_path / title.replace(" ", "_")
        shutil.copytree(states[state], path)
        DAMAGES[title](path / name)
        check(path, whole, capfd)
        shutil.rmtree(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_damaged_files_cost_a_line_or_nothing(states, tmp_path, capfd, state, name):
    damaged(states, tmp_path, capfd, state, name, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_any_damage_costs_a_line_or_nothing(states, tmp_path, capfd, state, name):
    damaged(states, tmp_path, capfd, state, name, tuple(title for title in DAMAGES if title not in QUICK))


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_exchanged_and_lost_files_cost_a_line_or_nothing(states, tmp_path, capfd, state):
    def exchange(one, other):
        def damage(path):
            (path / one).rename(path / "aside")
            (path / other).rename(path / one)
            (path / "aside").rename(path / other)

        return damage

    def without(*names):
        def damage(path):
            for name in names:
                shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink()

        return damage

    damages = [
        exchange("config.yaml", "run.json"),
        exchange("metrics.jsonl", "timing.jsonl"),
        exchange("results/found.json", "run.json"),
        exchange("checkpoints/search", "checkpoints/retrain"),
        exchange("checkpoints/search/step_10", "checkpoints/search/step_12"),
        without("run.json", "config.yaml"),
        without("checkpoints/search/step_12"),
        without("checkpoints/search"),
        without("checkpoints/search", "metrics.jsonl"),
        without("results", "checkpoints/search/step_12"),
    ]
    whole = essentials(states["finished"])
    for number, damage in enumerate(damages):
        path = tmp_path / str(number)
        shutil.copytree(states[state], path)
        damage(path)
        check(path, whole, capfd)


def test_a_value_made_by_another_run_is_refused(states, tmp_path):
    shutil.copytree(states["stopped"], tmp_path / "run")
    go(tmp_path / "other", seed=1)
    shutil.copy(tmp_path / "other" / "results" / "found.json", tmp_path / "run" / "results" / "found.json")
    with pytest.raises(ValueError, match=r"found\.json belongs to another run: seed is 1 there and 0 here"):
        go(tmp_path / "run")


def test_a_damaged_result_without_checkpoints_to_mend_it_is_kept(states, tmp_path):
    shutil.copytree(states["finished"], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert go(tmp_path / "run")["system"] == "toy"
    (tmp_path / "run" / "network.bin").unlink()
    with pytest.raises(ValueError, match=r"finished, but network\.bin is missing, and checkpoints to mend it are gone"):
        go(tmp_path / "run")
    assert (tmp_path / "run" / "result.json").exists()


def test_files_that_lay_there_before_are_no_part_of_the_run(tmp_path):
    (tmp_path / "notes.txt").write_text("before")
    go(tmp_path)
    (tmp_path / "notes.txt").write_text("after")
    (tmp_path / "more.txt").write_text("new")
    shutil.rmtree(tmp_path / "checkpoints")
    assert go(tmp_path)["system"] == "toy"
