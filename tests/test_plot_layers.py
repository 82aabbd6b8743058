"""The picture of a convolutional network of NAS-RL shows every layer and every connection, and tells them apart."""

import itertools
import re

import matplotlib as mpl
import numpy as np
import pytest

from jaxnas import plot
from jaxnas.errors import UserError
from jaxnas.plot._layer_network import GAP, SIDE, arrows
from jaxnas.spaces import registry
from jaxnas.spaces.nas_rl import PUBLISHED_NETWORKS, nas_rl_space


def _drawn(tmp_path, space, text):
    """The texts of an SVG picture, but for empty ones."""
    with mpl.rc_context({"svg.fonttype": "none"}):
        path = plot.layer_network(tmp_path / "new" / "network.svg", space.about, space.about.parse(text))
    return [word for word in re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8")) if word]


def test_boxes_name_image_layers_and_classifier(tmp_path):
    words = _drawn(tmp_path, nas_rl_space(3), "|3x5 36|1x7 24|5x5 48 from 0|")
    assert words == ["image", "3×5", "36", "0", "1×7", "24", "1", "5×5", "48", "2", "classes"]


def test_strides_blocks_and_poolings_are_named(tmp_path):
    space = nas_rl_space(3, strides=(1, 2), convolutions=3, pooling=(2, 3))
    words = _drawn(tmp_path, space, "|3x5/2x1 36|1x7/1x1 24|5x5/1x2 48 from 0|")
    assert [word for word in words if "by" in word] == ["by 2×1", "by 1×1", "by 1×2"]
    assert [word for word in words if "·" in word] == ["3·36", "3·24", "3·48"]
    assert words.count("pool") == 1  # the one behind the last layer is left out


def _pairs(space, text):
    """Places of the ends of all connections, read from the text."""
    read, found, depth = set(), [], space.choices["filters"].shape[0]
    for i, part in enumerate(text.strip("|").split("|")):
        inputs = [int(j) for j in part.partition(" from ")[2].split(",") if j]
        found += [(j + 1, i + 1) for j in inputs or (-1,)]
        read |= set(inputs)
    return found + [(j + 1, depth + 1) for j in range(depth) if j not in read]


def test_every_connection_has_an_arrow(tmp_path, monkeypatch):
    space, text = nas_rl_space(5), "|3x3 24|3x3 24|3x3 36 from 1|1x1 48 from 1|1x1 64 from 1,3|"
    asked = []
    monkeypatch.setattr(plot._layer_network, "arrows", lambda pairs: asked.extend(pairs) or arrows(pairs))
    _drawn(tmp_path, space, text)
    assert sorted(asked) == sorted(_pairs(space, text))
    assert (1, 6) in asked  # layer 0, which no layer reads, goes to the classifier
    assert (0, 2) in asked  # layer 1 reads the image


def test_arrows_lead_from_box_to_box():
    space, text = nas_rl_space(15), PUBLISHED_NETWORKS["nas_rl_v1"]
    pairs = _pairs(space, text)
    step = SIDE + GAP  # from one centre to the next
    for arrow, (source, target) in zip(arrows(pairs), pairs, strict=True):
        assert (arrow.source, arrow.target) == (source, target)
        (start, low), (end, also_low) = arrow.points[[0, -1]]
        assert 0 < start - source * step <= SIDE / 2 + 1e-9
        assert 0 < target * step - end <= SIDE / 2 + 1e-9
        assert np.allclose([low, also_low], 0 if target - source == 1 else SIDE / 2)


def test_arches_with_a_common_end_do_not_cross():
    arches = [
        arrow for arrow in arrows(_pairs(nas_rl_space(15), PUBLISHED_NETWORKS["nas_rl_v1"])) if len(arrow.points) > 2
    ]
    compared = 0
    for one, other in itertools.combinations(arches, 2):
        if one.source == other.source or one.target == other.target:
            inner, outer = sorted((one, other), key=lambda arrow: arrow.target - arrow.source)
            heights = np.interp(inner.points[:, 0], outer.points[:, 0], outer.points[:, 1])
            assert (heights > inner.points[:, 1]).all()
            compared += 1
    assert compared > 60


def test_it_is_the_picture_of_an_architecture_of_its_space(tmp_path, monkeypatch):
    space, asked = nas_rl_space(2), []
    monkeypatch.setattr(plot._architecture, "layer_network", lambda *arguments: asked.append(arguments) or "drawn")
    arch = space.about.parse("|3x3 24|3x3 24|")
    assert plot.architecture(tmp_path / "network.svg", space.about, arch) == "drawn"
    assert asked == [(tmp_path / "network.svg", space.about, arch)]


def test_another_space_is_refused(tmp_path):
    with pytest.raises(UserError, match="space must be one of nas_rl_space"):
        plot.layer_network(tmp_path / "network.png", registry.build("nasbench201-small").about, {"cell": [0] * 6})
