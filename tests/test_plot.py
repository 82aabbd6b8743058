"""Pictures hold what they should, nothing overlaps, and the Graphviz text is the same every time."""

import math
import re
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

from jaxnas import plot
from jaxnas.base import About
from jaxnas.plot.graph import panels
from jaxnas.plot.layout import CHARACTER, LABEL_HEIGHT, RADIUS, place
from jaxnas.spaces import registry

CHAIN = About(name="chain", operations=("conv3", "conv5", "none"))
BARE = About(name="bare")


def about(name):
    return registry.build(name).about


def random_arch(name, seed=0):
    space, rng = registry.build(name), np.random.default_rng(seed)
    return space.derive(jax.tree.map(lambda c: jnp.asarray(rng.normal(size=c.shape), jnp.float32), space.choices))


def full_arch(seed=0):
    """Fourteen edges per cell, none of them `none`."""
    rng = np.random.default_rng(seed)
    return {kind: rng.integers(1, 8, 14) for kind in ("normal", "reduce")}


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def words(path):
    """The texts of an SVG picture, in order."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


@pytest.fixture
def svg_text():
    """SVG pictures keep text as text."""
    with mpl.rc_context({"svg.fonttype": "none"}):
        yield


@pytest.mark.parametrize(
    ("space", "arch", "least"),
    [
        (about("darts"), random_arch("darts"), (1200, 700)),
        (about("snas"), full_arch(), (1200, 900)),
        (about("snas"), {"normal": [0] * 14, "reduce": [0] * 14}, (700, 400)),
        (about("nasbench201"), random_arch("nasbench201"), (700, 300)),
        (CHAIN, [0, 1, 2] * 7, (800, 150)),
        (BARE, {"a": [0, 1, 2], "b": np.array([1])}, (100, 200)),
    ],
)
def test_a_picture_of_a_fitting_size(tmp_path, space, arch, least):
    path = plot.architecture(tmp_path / "new" / "cell.png", space, arch)
    width, height = png_size(path)
    assert least[0] <= width <= 2000
    assert least[1] <= height <= 2000


@pytest.mark.parametrize("name", ["darts", "snas", "nasbench201"])
def test_every_edge_but_none_is_labelled(tmp_path, svg_text, name):
    space, arch = about(name), random_arch(name, 1)
    found = words(plot.architecture(tmp_path / "cell.svg", space, arch))
    chosen = [space.operations[kind][k] for kind, leaf in arch.items() for k in leaf.tolist()]
    for operation in {*chosen}:
        legend = operation != "none"
        assert found.count(operation) == (0 if operation == "none" else chosen.count(operation)) + legend
    ends = {"input", "output"} if name == "nasbench201" else {"cₖ₋₂", "cₖ₋₁", "cₖ"}
    assert ends < {*found}


@pytest.mark.parametrize("edges", [None, ((0, 1), (1, 2), (2, 3), (3, 4))])
def test_chains_and_spaces_without_edges_become_tables(tmp_path, svg_text, edges):
    found = words(plot.architecture(tmp_path / "table.svg", CHAIN._replace(edges=edges), [0, 2, 1, 0]))
    assert found == ["chain", "conv3", "conv5", "none", "0", "1", "2", "3"]


def edges_of(name, arch):
    return [place(panel) for panel in panels(about(name), arch)]


@pytest.mark.parametrize("name", ["snas", "darts", "nasbench201"])
def test_labels_meet_neither_each_other_nor_a_node(name):
    for seed in range(8):
        arch = full_arch(seed) if name == "snas" else random_arch(name, seed)
        for layout in edges_of(name, arch):
            labels = [(*curve.label, len(curve.edge.operation) * CHARACTER / 2) for curve in layout.curves]
            for i, (x, y, half) in enumerate(labels):
                for other_x, other_y, other_half in labels[:i]:
                    assert abs(x - other_x) > half + other_half or abs(y - other_y) > LABEL_HEIGHT
                for node_x, node_y in layout.nodes:
                    assert abs(x - node_x) > half + RADIUS or abs(y - node_y) > LABEL_HEIGHT / 2 + RADIUS


def test_edges_run_from_rim_to_rim_and_carry_their_label():
    (layout, _) = edges_of("snas", full_arch())
    assert len(layout.curves) == 14
    left, low, right, high = layout.box
    for edge, points, label in layout.curves:
        source, target = layout.nodes[edge.source], layout.nodes[edge.target]
        assert math.dist(points[0], source) == pytest.approx(RADIUS)
        assert RADIUS < math.dist(points[-1], target) < RADIUS + 0.05
        assert np.min(np.hypot(*(points - label).T)) < 1e-6
        assert np.all((points > [left - 0.5, low]) & (points < [right + 0.5, high]))


def test_edges_into_one_node_arrive_apart():
    (layout, _) = edges_of("snas", full_arch())
    tips = [curve.points[-1] for curve in layout.curves]
    assert min(math.dist(a, b) for i, a in enumerate(tips) for b in tips[:i]) > 0.06


NB201_DOT = """\
digraph "nasbench201" {
  rankdir=LR;
  node [shape=circle];
  subgraph "cluster_cell" {
    label="cell";
    "cell/input" [label="input"];
    "cell/1" [label="1"];
    "cell/2" [label="2"];
    "cell/output" [label="output"];
    "cell/input" -> "cell/1" [label="nor_conv_3x3", color="#2e8b3d"];
    "cell/input" -> "cell/2" [label="skip_connect", color="#2f6db3"];
    "cell/1" -> "cell/output" [label="avg_pool_3x3", color="#c0392b"];
    "cell/2" -> "cell/output" [label="nor_conv_1x1", color="#d9650b"];
  }
}
"""


def test_dot_of_a_cell():
    assert plot.dot(about("nasbench201"), {"cell": [3, 1, 0, 0, 4, 2]}) == NB201_DOT


def test_dot_of_concatenated_nodes():
    text = plot.dot(about("darts"), random_arch("darts"))
    assert text == plot.dot(about("darts"), random_arch("darts"))
    assert text.count("subgraph") == 2
    assert len(re.findall(r"-> .* \[label=", text)) == 16
    assert text.count("[style=dashed]") == 8
    assert '"normal/c_{k-2}"' in text
    assert "none" not in text


def test_dot_without_edges_lists_the_decisions():
    assert 'shape=record, label="0: conv5|1: none"' in plot.dot(CHAIN, [1, 2])


@pytest.mark.parametrize(
    ("space", "arch"),
    [
        (about("darts"), {"normal": [1] * 14}),
        (about("darts"), {"normal": [1] * 14, "reduce": [1] * 13}),
        (about("darts"), {"normal": [1] * 14, "reduce": [8] * 14}),
        (CHAIN, [0, -1]),
    ],
)
def test_an_architecture_of_another_space_is_refused(tmp_path, space, arch):
    for draw in (lambda: plot.dot(space, arch), lambda: plot.architecture(tmp_path / "x.png", space, arch)):
        with pytest.raises(ValueError, match=f"arch: not of space '{space.name}'"):
            draw()


def records(steps=30):
    for step in range(1, steps + 1):
        norms = {"weight_norm": 3.0, "policy_norm": 0.01 * step}
        yield {
            "phase": "search",
            "step": step,
            "loss": 1 / step,
            "accuracy": 0.5,
            "entropy": 2.0,
            "lists": [1.0],
        } | norms


def titles(path):
    return [word for word in words(path) if word.startswith(("search", "random"))]


def test_curves_show_what_was_recorded(tmp_path, svg_text):
    found = titles(plot.curves(tmp_path / "curves.svg", records()))
    assert found == [
        f"search: {title}"
        for title in ("loss [nats]", "accuracy", "entropy of the architecture [nats]", "gradient norm")
    ]


def test_curves_leave_out_what_a_method_does_not_have(tmp_path, svg_text):
    said = {"temperature": "NaN", "penalty": 0.0, "entropy": "NaN", "nonfinite": 0.0}
    silent = [{**record, **said} for record in records()]
    found = titles(plot.curves(tmp_path / "curves.svg", silent))
    assert found == ["search: loss [nats]", "search: accuracy", "search: gradient norm"]


def test_phases_of_one_kind_share_a_panel(tmp_path, svg_text):
    runs = [
        {"phase": f"random/{i}", "step": s, "loss": 1.0 + i, "expected_latency": 2.0} for i in range(3) for s in (1, 2)
    ]
    path = plot.curves(tmp_path / "curves.svg", runs)
    assert titles(path) == ["random: loss [nats]", "random: cost"]
    assert words(path).count("loss") == 1


def test_one_loss_under_two_names_is_drawn_once(tmp_path, svg_text):
    path = plot.curves(tmp_path / "curves.svg", [{**record, "policy_loss": record["loss"]} for record in records()])
    assert words(path).count("loss") == 1
    assert "policy_loss" not in words(path)


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_curves_of_any_length(tmp_path, steps):
    long = list(records(steps))
    long[0] |= {"loss": "NaN", "accuracy": "Infinity", "policy_norm": 0.0}
    assert png_size(plot.curves(tmp_path / "curves.png", long)) == (1512, 648)


def test_curves_of_nothing_finite_and_of_nothing_at_all(tmp_path):
    bad = [{"phase": "search", "step": step, "loss": "NaN", "weight_norm": "Infinity"} for step in (1, 2)]
    assert png_size(plot.curves(tmp_path / "bad.png", bad)) == (504, 324)
    assert png_size(plot.curves(tmp_path / "none.png", [])) == (504, 324)


def test_matplotlib_is_imported_when_something_is_drawn():
    program = "import sys, jaxnas.plot; assert 'matplotlib' not in sys.modules"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
