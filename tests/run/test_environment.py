"""Where a run takes place."""

import pwd
import warnings

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxnas.run import (
    enable_compilation_cache,
    environment,
)

CACHE = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


def test_environment_and_cache(tmp_path, monkeypatch):
    found = environment()
    assert found["jax"] == jax.__version__
    assert found["device"] == "cpu"
    assert found["commit"] is None or len(found["commit"].removesuffix("-dirty")) == 40
    former = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "env"))
    try:
        assert enable_compilation_cache() == tmp_path / "env"
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "env")
        assert enable_compilation_cache(tmp_path / "given").is_dir()
        (tmp_path / "file").write_text("")
        assert enable_compilation_cache(tmp_path / "file" / "x") is None
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert enable_compilation_cache().parent == tmp_path / ".cache" / "jaxnas"
    finally:
        jax.config.update("jax_compilation_cache_dir", former)


@pytest.fixture
def no_home(monkeypatch):
    """A user without a home: no HOME, and no entry among the users, as under `docker run --user N`."""

    def nobody(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


def test_without_a_home_programs_are_compiled_anew(no_home):
    former = jax.config.jax_compilation_cache_dir
    assert enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir == former


@pytest.mark.parametrize(
    "damage", [lambda entry: entry[: len(entry) // 2], lambda entry: b"", lambda entry: entry[::-1]]
)
def test_damaged_entries_of_the_cache_cost_one_line_and_are_written_anew(damage, tmp_path, capsys):
    former = {name: getattr(jax.config, name) for name in CACHE}

    def compiled():
        for number in range(2):
            jax.jit(lambda x, number=number: jnp.sin(x @ x) + number).lower(jnp.ones((3, 3))).compile()
        return {path.name: path.read_bytes() for path in tmp_path.glob("jit__lambda-*-cache")}

    try:
        compilation_cache.reset_cache()
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            enable_compilation_cache(tmp_path)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
            whole = compiled()
            assert len(whole) == 2
            for path in tmp_path.glob("*-cache"):
                path.write_bytes(damage(path.read_bytes()))
            jax.clear_caches()
            assert compiled().keys() == whole.keys()
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 1, lines
            assert lines[0].startswith(f"compilation cache {tmp_path}: an entry cannot be read: ")
            jax.clear_caches()
            compiled()
            assert capsys.readouterr().err == ""
    finally:
        for name, value in former.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
