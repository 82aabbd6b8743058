"""Checkpoints come back bit for bit or not at all: every kind of leaf, every kind of damage."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.checkpoint import CheckpointError, Checkpoints, Owner, digest
from jaxnas.files import Damaged, sealed, unsealed


class State(NamedTuple):
    params: Any
    opt_state: Any
    key: jax.Array
    extra: Any


def make_state(seed: int = 0) -> State:
    params = {
        "kernel": jax.random.normal(jax.random.key(seed), (3, 4)),
        "half": jnp.asarray([1.5, jnp.nan, -jnp.inf], jnp.bfloat16),
        "empty": jnp.zeros((0, 3)),
        "a/b.c": [jnp.arange(5, dtype=jnp.uint8), jnp.asarray(True)],
    }
    extra = {
        "none": None,
        "count": 2**70 + seed,
        "rate": float("nan"),
        "flag": True,
        "phase": 1 - 2j,
        "int32": np.int32(seed),
        "bool_": np.bool_(True),
        "int64": np.arange(3, dtype=np.int64) + 2**40,
        "float64": np.asarray([0.1, -0.0]),
        "legacy": jnp.asarray([1, 2], jnp.uint32),
        "keys": jax.random.split(jax.random.key(seed, impl="rbg"), 3),
        "tuple": (),
    }
    return State(params, optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params), jax.random.key(seed), extra)


def bits(leaf: Any) -> tuple:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return "key", str(leaf.dtype), *bits(jax.random.key_data(leaf))
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        kind = "jax" if isinstance(leaf, jax.Array) else type(leaf)
        return kind, str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()
    return type(leaf), repr(leaf)


def assert_same(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert [bits(leaf) for leaf in jax.tree.leaves(one)] == [bits(leaf) for leaf in jax.tree.leaves(other)]


def save_steps(folder: Path, *steps: int, **meta: Any) -> None:
    with Checkpoints(folder, keep=10) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), {"step": step, **meta})


def data_file(folder: Path, step: int) -> Path:
    """The file that holds the largest piece of the arrays."""
    return max((folder / f"step_{step}" / "state").rglob("d/*"), key=lambda path: path.stat().st_size)


def test_round_trip_of_every_kind_of_leaf(tmp_path):
    save_steps(tmp_path, 3, space="toy")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [3]
        step, state, meta = checkpoints.restore(make_state(5), check_meta={"space": "toy"})
    assert step == 3
    assert meta == {"step": 3, "space": "toy"}
    assert_same(state, make_state(3))


def test_target_may_be_abstract_or_a_function_of_meta(tmp_path):
    state = {"x": jnp.arange(4.0), "k": jax.random.key(1)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state, {"size": 4})
        assert_same(checkpoints.restore(jax.eval_shape(lambda: state))[1], state)
        grown = checkpoints.restore(lambda meta: {"x": jnp.zeros(meta["size"]), "k": jax.random.key(0)})
    assert_same(grown[1], state)


@pytest.mark.parametrize("state", [{}, None, {"empty": jnp.zeros((2, 0))}, {"n": 3}, jnp.ones(())])
def test_states_without_arrays_and_bare_leaves(tmp_path, state):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        assert_same(checkpoints.restore(state)[1], state)


def test_sharding_and_commitment_follow_the_target(tmp_path):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    target = {"split": jax.device_put(jnp.zeros(8), split), "free": jnp.zeros(2), "key": jax.random.key(0)}
    target["second"] = jax.device_put(jnp.zeros(3), jax.devices()[1])
    state = jax.tree.map(lambda leaf: leaf if leaf.ndim == 0 else leaf + jnp.arange(leaf.size), target)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        _, restored, _ = checkpoints.restore(target)
    assert_same(restored, state)
    for name, leaf in target.items():
        assert restored[name].sharding == leaf.sharding, name
        assert restored[name].committed == leaf.committed, name


def test_restored_arrays_are_donated_safely(tmp_path):
    double = jax.jit(lambda x: x * 2, donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        value = jnp.arange(1000.0)
        checkpoints.save(1, value)
        for _ in range(3):
            value = double(value)
        _, value, _ = checkpoints.restore(value)
        np.testing.assert_array_equal(double(value), 2 * np.arange(1000.0))
        np.testing.assert_array_equal(checkpoints.restore(jnp.zeros(1000))[1], np.arange(1000.0))


@pytest.mark.parametrize(
    ("leaf", "name"),
    [
        ("text", "str"),
        (np.asarray(["text"]), "<U4"),
        (np.asarray([object()]), "object"),
        (np.asarray(["2020-01-01"], "datetime64[D]"), "datetime64"),
        (np.zeros(2, ">f4"), ">f4"),
        (object(), "object"),
    ],
)
def test_leaves_that_cannot_be_kept_are_refused_by_path(tmp_path, leaf, name):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=rf"state\['a'\]\[1\] is a .*{name}"):
            checkpoints.save(1, {"a": (1, leaf)})
        assert checkpoints.steps() == []


def test_meta_must_be_json_and_keep_positive(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="must be JSON"):
        checkpoints.save(1, {}, {"x": np.zeros(2)})
    with pytest.raises(ValueError, match="keep is 0"):
        Checkpoints(tmp_path, keep=0)


def test_refused_and_failed_saves_do_not_hang_the_interpreter(tmp_path):
    program = f"""
        import jax.numpy as jnp
        from jaxnas.checkpoint import Checkpoints
        with Checkpoints({str(tmp_path)!r}) as checkpoints:
            checkpoints.save(1, {{"a": jnp.ones(2)}})
            checkpoints.save(2, {{"a": "text"}})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("jaxnas.errors.UserError: leaf state['a'] is a str")


def flip(folder: Path) -> None:
    """Flips the middle half of every file of arrays: where in them an array lies differs from save to save."""
    for path in [*(folder / "step_6" / "state").rglob("d/*")]:
        content = bytearray(path.read_bytes())
        middle = slice(len(content) // 4, -(-3 * len(content) // 4))
        content[middle] = bytes(byte ^ 0xFF for byte in content[middle])
        path.write_bytes(content)


def flip_meta(folder: Path) -> None:
    path = folder / "step_6" / "meta" / "metadata"
    path.write_text(path.read_text().replace('"step": 6', '"step": 7').replace('"step":6', '"step":7'))


def truncate(folder: Path) -> None:
    for path in [*(folder / "step_6" / "state").rglob("d/*")]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncate_everything(folder: Path) -> None:
    for path in (folder / "step_6").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def rename(folder: Path) -> None:
    (folder / "step_6").rename(folder / "step_9")


def rename_over(folder: Path) -> None:
    shutil.rmtree(folder / "step_4")
    (folder / "step_6").rename(folder / "step_4")


def empty_step(folder: Path) -> None:
    (folder / "step_8").mkdir()


def file_in_place_of_step(folder: Path) -> None:
    (folder / "step_8").write_text("")


def remove(*names: str):
    def damage(folder: Path) -> None:
        for name in names:
            for path in [*(folder / "step_6").rglob(name)]:
                path.unlink()

    return damage


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (flip, 4),
        (flip_meta, 4),
        (truncate, 4),
        (truncate_everything, 4),
        (remove("manifest.ocdbt"), 4),
        (remove("metadata"), 4),
        (rename, 4),
        (rename_over, 2),
        (empty_step, 6),
        (file_in_place_of_step, 6),
    ],
    ids=["flip", "flip_meta", "truncate", "truncate_all", "manifest", "meta", "rename", "rename_over", "empty", "file"],
)
def test_damage_costs_one_line_and_a_step(tmp_path, capfd, damage, expected):
    save_steps(tmp_path, 2, 4, 6)
    damage(tmp_path)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        step, state, _ = checkpoints.restore(make_state())
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("jaxnas: skipped checkpoint ")
        assert step == expected
        assert_same(state, make_state(expected))
        checkpoints.save(8, make_state(8), {"step": 8})
        assert checkpoints.steps() == [expected, 8]  # the broken ones do not count among those kept
        assert_same(checkpoints.restore(make_state())[1], make_state(8))


def test_a_lost_orbax_index_costs_nothing(tmp_path, capfd):
    save_steps(tmp_path, 4, 6)
    remove("_METADATA", "_sharding")(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(make_state())[1], make_state(6))
    assert capfd.readouterr().err == ""


def test_every_flipped_byte_is_seen(tmp_path):
    state = {"x": jnp.arange(2000, dtype=jnp.int32)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        path = data_file(tmp_path, 1)
        original = path.read_bytes()
        for position in np.linspace(0, len(original) - 1, 12).astype(int):
            content = bytearray(original)
            content[position] ^= 0x10
            path.write_bytes(content)
            try:
                restored = checkpoints.restore(state)
            except CheckpointError:
                continue
            assert_same(restored[1], state)  # a byte that carries nothing


def test_none_that_verifies_is_an_error(tmp_path, capfd):
    save_steps(tmp_path, 5, 6)
    flip(tmp_path)
    remove("metadata")(tmp_path)
    (tmp_path / "step_5" / "state" / "manifest.ocdbt").unlink()
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        checkpoints.restore(make_state())
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_no_checkpoint_is_none_and_leftovers_do_not_count(tmp_path):
    with Checkpoints(tmp_path / "never") as checkpoints:
        assert checkpoints.restore(make_state()) is None
    assert not (tmp_path / "never").exists()
    leftover = tmp_path / "step_9.orbax-checkpoint-tmp"
    leftover.mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore({}) is None
        checkpoints.save(3, {"x": jnp.ones(2)})
        assert checkpoints.steps() == [3]
        assert not leftover.exists()


def test_another_meta_is_refused_by_field(tmp_path):
    save_steps(tmp_path, 1, config={"space": "darts", "cells": 8})
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=r"config\.cells is 8, expected 20"):
            checkpoints.restore(make_state(), check_meta={"config": {"space": "darts", "cells": 20}})
        with pytest.raises(ValueError, match="name is None, expected 'x'"):
            checkpoints.restore(make_state(), check_meta={"name": "x"})
        assert checkpoints.restore(make_state(), check_meta={"config": {"space": "darts"}})[0] == 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"a": jnp.zeros((2, 2)), "n": 1}, r"state\['a'\] is float32\[2,3\], expected float32\[2,2\]"),
        ({"a": jnp.zeros((2, 3), jnp.bfloat16), "n": 1}, r"is float32\[2,3\], expected bfloat16\[2,3\]"),
        ({"a": jnp.zeros((2, 3)), "n": jnp.ones((), int)}, r"state\['n'\] is int, expected int32\[\]"),
        ({"a": jnp.zeros((2, 3)), "n": 1, "b": 2}, r"state\['b'\] is missing, expected int"),
        ({"n": 1}, r"state\['a'\] is float32\[2,3\], expected no such leaf"),
        ({"x": jnp.zeros((2, 3)), "n": 1}, r"\(1 more leaves differ\)"),
    ],
)
def test_another_form_is_refused_in_one_line(tmp_path, target, message):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": jnp.zeros((2, 3)), "n": 1})
        with pytest.raises(ValueError, match=message) as raised:
            checkpoints.restore(target)
    assert "\n" not in str(raised.value)
    assert not isinstance(raised.value, CheckpointError)


def test_keep_and_the_last_good_step(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, {"x": jnp.full(2, step)})
        assert checkpoints.steps() == [3, 4]
        for step in range(5, 9):
            checkpoints.save(step, {"x": jnp.full(2, jnp.nan)}, good=False)
        assert checkpoints.steps() == [4, 7, 8]
        checkpoints.save(9, {"x": jnp.ones(2)})
        assert checkpoints.steps() == [8, 9]


def test_saving_again_replaces_the_step_and_what_came_later(tmp_path):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in (1, 2, 3, 2):
            checkpoints.save(step, {"x": jnp.full(2, 10 * step)}, {"again": checkpoints.steps()})
        assert checkpoints.steps() == [1, 2]
        assert checkpoints.restore({"x": jnp.zeros(2, int)})[2] == {"again": [1, 2, 3]}


def test_steps_that_are_not_preferred_come_last(tmp_path):
    save_steps(tmp_path, 2, 4, 6)
    with Checkpoints(tmp_path) as checkpoints:
        for wanted, expected in (({2, 4, 6}, 6), ({2, 4}, 4), ({2}, 2), (set(), 6)):
            prefer = lambda step, meta, wanted=wanted: meta["step"] == step and step in wanted  # noqa: E731
            assert checkpoints.restore(make_state(), prefer=prefer)[0] == expected


def test_one_owner_saves_at_a_time(tmp_path):
    state = {"x": jnp.ones(2)}
    with Checkpoints(tmp_path) as first, Checkpoints(tmp_path) as second:
        first.save(80, state)
        with pytest.raises(ValueError, match="in use by another run"):
            second.save(10, state)
        assert second.restore(state)[0] == 80  # reading is free
        first.save(90, state)
        assert first.steps() == [80, 90]
    with Checkpoints(tmp_path) as third:
        third.save(85, state)
        assert third.steps() == [80, 85]


def test_what_another_owner_saved_meanwhile_is_not_replaced(tmp_path):
    state = {"x": jnp.ones(2)}
    with Checkpoints(tmp_path) as slow:
        assert slow.restore(state) is None
        with Checkpoints(tmp_path) as fast:
            fast.save(90, state)
        with pytest.raises(ValueError, match="has got step 90 from another run meanwhile"):
            slow.save(10, state)
        assert slow.restore(state)[0] == 90  # who has read it may go on from it
        slow.save(91, state)
        assert slow.steps() == [90, 91]


def test_a_killed_owner_leaves_nothing_behind(tmp_path):
    program = f"""
        import time
        from pathlib import Path
        from jaxnas.checkpoint import Owner
        with Owner(Path({str(tmp_path)!r}), "workdir"):
            print("held", flush=True)
            time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"workdir {tmp_path} is in use by another run"):
            Owner(tmp_path, "workdir").acquire()
        process.send_signal(signal.SIGKILL)
    with Owner(tmp_path, "workdir") as owner:
        assert owner.held
    assert not owner.held


def test_a_folder_that_cannot_be_locked_costs_one_line(tmp_path, monkeypatch, capsys):
    filelock = pytest.importorskip("filelock")

    def fail(code):
        def acquire(self, **_):
            raise OSError(code, os.strerror(code))

        return acquire

    with monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "acquire", fail(errno.ENOLCK))
        with Owner(tmp_path, "workdir") as owner:
            assert owner.held
        assert "nothing else may write there" in capsys.readouterr().err
        patch.setattr(filelock.FileLock, "acquire", fail(errno.EROFS))
        with pytest.raises(ValueError, match="cannot be written to: Read-only file system"):
            Owner(tmp_path, "workdir").acquire()
        patch.setattr(sys, "stderr", None)
        patch.setattr(filelock.FileLock, "acquire", fail(errno.ENOLCK))
        Owner(tmp_path, "workdir").acquire()
    assert capsys.readouterr() == ("", "")


def test_a_failed_save_leaves_what_was_there_and_no_litter(tmp_path, monkeypatch):
    state = {"x": jnp.ones(2)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        _, manager = checkpoints._orbax()

        def fail(step, **_):
            (tmp_path / f"step_{step}.orbax-checkpoint-tmp").mkdir()
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(manager, "save", fail)
            with pytest.raises(OSError, match=r"step_2 cannot be written: OSError: .*No space left"):
                checkpoints.save(2, state)
        assert [path.name for path in sorted(tmp_path.iterdir())] == [".lock", "step_1"]
        checkpoints.save(2, state)
        assert checkpoints.steps() == [1, 2]


def test_sealed_json_shows_what_was_altered():
    assert unsealed(sealed({"b": (1, 2), "a": 0.5})) == {"b": [1, 2], "a": 0.5}
    for altered in ({**sealed({"a": 1}), "a": 2}, {"a": 1}, {**sealed({"a": 1}), "b": 1}, [], None, 3):
        with pytest.raises(Damaged):
            unsealed(altered)


def test_a_digest_tells_trees_apart():
    tree = {"x": np.arange(6, dtype=np.uint8), "key": jax.random.key(1), "n": 3, "half": jnp.ones(2, jnp.bfloat16)}
    others = [
        {**tree, "x": tree["x"][::-1]},
        {**tree, "x": tree["x"].reshape(2, 3)},
        {**tree, "x": tree["x"].astype(np.int8)},
        {**tree, "key": jax.random.key(2)},
        {**tree, "n": 4},
        {**tree, "half": jnp.zeros(2, jnp.bfloat16)},
        {**tree, "more": np.zeros((0, 2))},
    ]
    assert digest(tree) == digest(dict(reversed(tree.items()))) == digest({**tree, "x": jnp.asarray(tree["x"])})
    assert len({digest(other) for other in [tree, *others]}) == len(others) + 1
    assert digest({"f": print}) == digest({"f": len})  # functions have no content
