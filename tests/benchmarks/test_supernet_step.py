"""The benchmark of a step: its counts against analytic ones, and its command line on the smallest supernet."""

import json
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks import floor, supernet_step


def convolve(x, kernel):
    """A 3x3 convolution that keeps the grid."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_work_of_a_convolution_and_its_gradients():
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    once = 2 * (2 * 8 * 8 * 4) * (3 * 3 * 3)
    assert floor.count(convolve, x, kernel) == (once, 4 * (2 * 8 * 8 * 3 + 3 * 3 * 3 * 4 + 2 * 8 * 8 * 4))
    both = floor.count(jax.grad(lambda x, kernel: convolve(x, kernel).sum(), (0, 1)), x, kernel)
    assert both.flops == pytest.approx(3 * once, rel=0.02)


def test_loops_count_every_turn_and_conditionals_their_mean():
    a = jnp.ones((10, 10))
    assert floor.count(lambda a: jax.lax.scan(lambda c, _: (c @ c, None), a, length=5)[0], a).flops == 5 * 2000
    either = floor.count(lambda i, a: jax.lax.switch(i, [lambda a: a @ a, lambda a: a], a), 0, a)
    assert either.bytes == 0.5 * 3 * a.nbytes


def test_peaks_are_positive():
    assert min(floor.peaks(seconds=0.01)) > 1e6


@pytest.mark.slow
def test_one_path_beside_another_program(capsys):
    other = f"{sys.executable} -c \"print('noise'); print('{{\\\"median_s\\\": 0.5}}')\""
    size = "--space nasbench201 --mode one_path --channels 4 --cells 1 --batch 4 --size 8".split()
    supernet_step.main([*size, "--steps", "1", "--pairs", "2", "--beside", other, "--floor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["beside_s"] == [0.5, 0.5]
    assert found["ratio"] == pytest.approx(found["median_s"] / 0.5, rel=0.5)
    assert found["temporary_mb"] > 0
    assert found["stablehlo_lines"] > 100
    assert found["binds"] in ("flops", "bytes")
    assert found["floor_s"] < found["median_s"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "nasbench"], "unknown space 'nasbench'"),
        (["--dtype", "float16"], "dtype must be 'float32', 'bfloat16' or 'float64'"),
        (["--steps", "0"], "--steps and --pairs must be at least 1"),
        (["--mode", "both"], "invalid choice: 'both'"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        supernet_step.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
