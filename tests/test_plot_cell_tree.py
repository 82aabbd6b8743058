"""The picture of a recurrent cell: every node with its operations, where memory comes in and goes out, no crossings."""

import itertools
import re

import matplotlib as mpl
import numpy as np
import pytest

from jaxnas import plot
from jaxnas.errors import UserError
from jaxnas.plot.cell_tree import ACROSS, UP, WIDTH, tree_nodes
from jaxnas.spaces import registry
from jaxnas.spaces.nas_rl import PUBLISHED, recurrent_cell_space

WORKED = recurrent_cell_space(2).about
NASCELL = recurrent_cell_space(8).about


def random_cell(base, seed):
    space, rng = recurrent_cell_space(base), np.random.default_rng(seed)
    return space.about, {name: rng.integers(0, c.shape[1], c.shape[0]) for name, c in space.choices.items()}


@pytest.fixture
def texts(tmp_path):
    """Draws a cell and gives the texts of the picture with their positions, in pixels from the upper left corner."""

    def drawn(about, arch):
        with mpl.rc_context({"svg.fonttype": "none"}):
            picture = plot.cell_tree(tmp_path / "new" / "cell.svg", about, arch).read_text(encoding="utf-8")
        found = re.findall(r"<text([^>]*)>([^<]*)</text>", picture)
        place = re.compile(r'(?:translate\(|x=")([\d.]+)[ "]*(?:y=")?([\d.]+)')
        return [(text, *map(float, place.search(about).groups())) for about, text in found]

    return drawn


def test_the_worked_example_by_hand():
    nodes = tree_nodes(WORKED, WORKED.parse(PUBLISHED["worked_example"]))
    assert [node[:3] for node in nodes] == [
        ("add", "tanh", ()),
        ("elem_mult", "relu", ()),
        ("elem_mult", "sigmoid", (0, 1)),
    ]
    assert [node.place for node in nodes] == [(0, 0), (1, 0), (0.5, 1)]


def test_a_picture_names_every_operation_and_marks_memory_and_inject(texts):
    arch = NASCELL.parse(PUBLISHED["nascell"])
    found = texts(NASCELL, arch)
    words = [text for text, *_ in found]
    # Each node has its two names in texts of their own; the inject has both in one.
    genotype = PUBLISHED["nascell"].partition(" | inject")[0]
    for name in ("add", "elem_mult", "tanh", "sigmoid", "relu", "identity"):
        assert words.count(name) == genotype.count(name), name
    assert words.count("add tanh") == 1
    assert [words.count(word) for word in ("xₜ", "hₜ₋₁", "cₜ₋₁", "cₜ", "hₜ")] == [8, 8, 1, 1, 1]
    # The memory leaves beside node 12, and the inject stands right above node 8.
    at = {text: place for text, *place in found}
    assert at["cₜ"][1] - at["12"][1] == pytest.approx(0.15 * 72, abs=4)  # points; the number stands above the middle
    assert at["8"][1] - at["add tanh"][1] == pytest.approx(0.37 * 72, abs=4)
    assert at["cₜ₋₁"][1] == pytest.approx(at["add tanh"][1], abs=5)
    assert at["hₜ"][1] < min(y for text, _, y in found if text != "hₜ")


@pytest.mark.parametrize("base", [2, 3, 5, 6, 7, 8, 11])
def test_boxes_stand_apart_and_branches_do_not_cross(base):
    nodes = tree_nodes(*random_cell(base, base))
    places = [(x * ACROSS, row * UP) for x, row in (node.place for node in nodes)]
    for (x, y), (other_x, other_y) in itertools.combinations(places, 2):
        assert abs(y - other_y) >= UP or abs(x - other_x) > WIDTH + 0.5

    # The leaves below each node are neighbours, and those of two nodes are apart or one within the other.
    def leaves(node):
        return {node} if not nodes[node].children else set().union(*map(leaves, nodes[node].children))

    for number in range(len(nodes)):
        places = sorted(nodes[leaf].place[0] for leaf in leaves(number))
        assert places == list(range(int(places[0]), int(places[0]) + len(places)))


@pytest.mark.parametrize(("base", "place"), [(2, 2), (3, 0), (8, 14)])
def test_everything_is_within_the_picture(texts, base, place):
    about, arch = random_cell(base, 0)
    arch["index"] = np.array([len(arch["combination"]) - 2, place])
    found = texts(about, arch)
    assert len(found) == 3 * (2 * base - 1) + 2 * base + 1 + 1 + 1 + 1 + 1
    assert min(min(x, y) for _, x, y in found) > 5


@pytest.mark.parametrize(
    ("about", "arch", "message"),
    [
        (NASCELL, WORKED.parse(PUBLISHED["worked_example"]), r"arch\['activation'\] is .*, expected 16 whole numbers"),
        (WORKED, {"combination": [0] * 4, "activation": [4] * 4, "index": [0, 1]}, "numbers from 0 to 3"),
        (WORKED, {"combination": [0] * 4, "activation": [3] * 4, "index": [0, 3]}, r"arch\['index'\] is \[0, 3\]"),
        (WORKED, {"combination": [0] * 4, "activation": [3] * 4}, r"arch\['index'\] is \[\], expected 2 whole"),
        (registry.build("nasbench201").about, {"cell": [0] * 6}, "about is of space 'nasbench201'"),
    ],
)
def test_an_architecture_of_another_space_is_refused(tmp_path, about, arch, message):
    with pytest.raises(UserError, match=message):
        plot.cell_tree(tmp_path / "x.png", about, arch)
