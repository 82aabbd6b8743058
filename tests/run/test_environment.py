"""Where a run takes place."""

import jax

from jaxnas.run import (
    enable_compilation_cache,
    environment,
)


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
