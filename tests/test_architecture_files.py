"""The reader of architectures: everything that people and programs write down, and one line for everything else."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxnas.architecture_files import build_space, read_architecture, read_source
from jaxnas.architectures import check_architecture
from jaxnas.describe import architecture_summary
from jaxnas.spaces import registry
from jaxnas.spaces.darts import PUBLISHED, darts_space, snas_space
from jaxnas.spaces.parts.literals import read_literal

KINDS = ("normal", "reduce")
CONCAT = {f"{kind}_concat": [2, 3, 4, 5] for kind in KINDS}
NASBENCH = "|skip_connect~0|+|avg_pool_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|none~1|avg_pool_3x3~2|"
RELEASED = """Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
    ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat={concat},
    reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0),
    ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat={concat})"""


def _small_snas():
    return snas_space(channels=4, cells=2, lowering="lax")


def _arch(seed=0):
    rng = np.random.default_rng(seed)
    return {kind: rng.integers(0, 8, 14).tolist() for kind in KINDS}


def _write(tmp_path, content) -> str:
    path = tmp_path / "architecture.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def _plain(arch):
    return jax.tree.map(np.ndarray.tolist, arch)


# Forms


@pytest.mark.parametrize("concat", ["range(2, 6)", "[2, 3, 4, 5]", "(2, 3, 4, 5)"])
def test_genotype_as_released(concat):
    space = darts_space()
    wanted = _plain(space.about.parse(PUBLISHED["darts_v2"]))
    text = RELEASED.format(concat=concat)
    flat = read_literal(text)
    assert len(flat["normal"]) == 8
    without = {kind: flat[kind] for kind in KINDS}
    unnamed = f"Genotype({flat['normal']}, range(2, 6), {flat['reduce']}, range(2, 6))"
    for source in (text, f"DARTS_V2 = {text}", unnamed, json.dumps(flat), repr(flat), json.dumps(without), "darts_v2"):
        assert _plain(read_architecture(space, source)) == wanted


def test_flat_genotype_with_every_edge_of_snas():
    space, arch = snas_space(), _arch(3)
    nested = space.about.genotype(arch)
    flat = {kind: [edge for node in nested[kind] for edge in reversed(node)] for kind in KINDS}
    assert _plain(read_architecture(space, json.dumps({**flat, **CONCAT}))) == arch


def test_edges_of_a_node_come_in_any_order_and_may_be_left_out():
    text = '{"normal": [["none", 1], ["skip_connect", 0]], "reduce": [[["skip_connect", 1]]]}'
    assert _plain(read_architecture(snas_space(nodes=1), text)) == {"normal": [3, 0], "reduce": [0, 3]}


@pytest.mark.parametrize(
    "source",
    [NASBENCH, json.dumps(NASBENCH), f"Structure(4 nodes with {NASBENCH})", "[1, 4, 3, 3, 0, 4]", "(1, 4, 3, 3, 0, 4)"],
)
def test_cell_of_the_benchmark(source, tmp_path):
    for name in ("nasbench201", "nasbench201-small"):
        space = registry.build(name)
        for given in (source, Path(_write(tmp_path, source))):
            assert _plain(read_architecture(space, given)) == {"cell": [1, 4, 3, 3, 0, 4]}
    nodes = [[part.split("~") for part in node.strip("|").split("|")] for node in NASBENCH.split("+")]
    assert _plain(read_architecture(space, json.dumps(nodes))) == {"cell": [1, 4, 3, 3, 0, 4]}


def test_existing_file_comes_before_a_name_and_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "darts_v2").write_text(json.dumps(_arch(4)))
    (tmp_path / "[0]").write_text(json.dumps(_arch(5)))
    assert _plain(read_architecture(snas_space(), "darts_v2")) == _arch(4)
    assert _plain(read_architecture(snas_space(), "[0]")) == _arch(5)


def test_text_is_read_and_never_run(tmp_path):
    mark = tmp_path / "mark"
    for text in (f"open({str(mark)!r}, 'w')", f"Genotype(normal=open({str(mark)!r}, 'w'), reduce=[])"):
        with pytest.raises(ValueError, match="neither integers nor a genotype"):
            read_architecture(darts_space(), text)
    assert not mark.exists()


# The space of an architecture that does not say it


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("darts_v2", "darts"),
        ("snas_mild", "snas"),
        (RELEASED.format(concat="range(2, 6)"), "darts"),
        (json.dumps(_arch(3)), "snas"),
        (NASBENCH, "nasbench201"),
        ("[1, 4, 3, 3, 0, 4]", "nasbench201"),
        (json.dumps(["3x3_e3"] * 21), "proxyless"),
        (json.dumps([["identity"] * 12] * 54), "proxyless-tree"),
    ],
)
def test_first_space_that_fits(source, name):
    assert build_space(read_source(source)).about.name == name


def test_no_space_that_fits():
    with pytest.raises(ValueError, match=r"of no space with its default settings; name the space .* darts, snas, nasb"):
        build_space(read_source("[0, 1]"))


@pytest.mark.parametrize("settings", [{"channels": "many"}, {"channels": [4]}, {"operations": 3}, {"chanels": 4}])
def test_settings_that_build_nothing_are_one_line(settings, tmp_path):
    source = read_source(_write(tmp_path, {"space": "darts", "arch": _arch(), "settings": settings}))
    with pytest.raises(ValueError, match=r"setting") as caught:
        build_space(source)
    assert "\n" not in str(caught.value)


# Files


def test_every_form_of_the_file_is_read(tmp_path):
    space, arch = _small_snas(), _arch(1)
    summary = architecture_summary(space, arch)
    forms = [summary, {"space": "snas", "architecture": arch}, {"arch": arch}, arch, summary["genotype"]]
    forms.append({"space": "snas", "architecture": summary["genotype"]})
    for content in forms:
        found = read_architecture(space, _write(tmp_path, content))
        assert {kind: leaf.tolist() for kind, leaf in found.items()} == arch
        assert {leaf.dtype for leaf in found.values()} == {np.dtype(np.int32)}


@pytest.mark.parametrize("as_json", [True, False])
def test_genotype_that_is_a_string(tmp_path, as_json):
    space = registry.build("nasbench201")
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    found = read_architecture(space, _write(tmp_path, json.dumps(text) if as_json else f"{text}\n"))
    assert found["cell"].tolist() == [3, 0, 1, 4, 2, 3]
    assert architecture_summary(space, found)["genotype"] == text


def test_architectures_that_darts_derives_are_inside_and_others_are_not():
    space = darts_space()
    derive = jax.jit(space.derive)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        arch = derive({kind: rng.normal(size=(14, 8)).astype(np.float32) for kind in KINDS})
        check_architecture(space, arch)
    three = {kind: np.array(leaf) for kind, leaf in arch.items()}
    three["normal"][2:5] = 3
    with pytest.raises(ValueError, match="outside of space darts"):
        check_architecture(space, three)
    one = {kind: np.array(leaf) for kind, leaf in arch.items()}
    one["reduce"][:2] = (1, 0)
    with pytest.raises(ValueError, match="outside of space darts"):
        check_architecture(space, one)
    check_architecture(snas_space(), three)


# Mistakes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ('{"normal": [1, 2', "not valid JSON"),
        ("nothing of the kind", "neither integers nor a genotype"),
        ("{}", "neither integers nor a genotype"),
        ("null", "neither integers nor a genotype"),
        ({"normal": [0] * 14}, "structure"),
        ({"normal": [0] * 14, "reduce": [0] * 13}, "expected integers of shape (14,)"),
        ({"normal": [0] * 14, "reduce": [8] * 14}, "operations must lie in 0..7"),
        ({"normal": [0] * 14, "reduce": [-1] * 14}, "operations must lie in 0..7"),
        ({"normal": [0] * 14, "reduce": [0.5] * 14}, "neither integers nor a genotype"),
        ({"normal": [0] * 14, "reduce": [True] * 14}, "expected integers"),
        ({"normal": [0] * 14, "reduce": [10**30] * 14}, "expected integers"),
        ({"normal": [[["conv", 0]]] * 4, "reduce": []}, "no edge 0 -> 2 with operation 'conv'"),
        ({"space": "darts", "arch": {kind: [0] * 14 for kind in KINDS}}, "of space 'darts', not of 'snas'"),
    ],
)
def test_mistake_in_the_file(tmp_path, content, message):
    with pytest.raises(ValueError, match=r"architecture\.json: ") as caught:
        read_architecture(_small_snas(), _write(tmp_path, content))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normal_concat": [2, 3]}, r"normal_concat must be \[2, 3, 4, 5\], all nodes of the space, got \[2, 3\]"),
        ({"normal": [["none", 0]] * 7}, "normal must list 8 or 14 edges, got 7"),
        ({"middle": []}, r"unknown entries \['middle'\]"),
        ({"reduce": [["skip_connect", 0]] * 8}, "reduce has two operations on edge 0 -> 2"),
        ({"reduce": [["skip_connect", 5]] * 8}, "no edge 5 -> 2"),
    ],
)
def test_mistake_in_a_flat_genotype(changes, message):
    flat = read_literal(RELEASED.format(concat="range(2, 6)"))
    with pytest.raises(ValueError, match=message):
        read_architecture(darts_space(), json.dumps({**flat, **changes}))


@pytest.mark.parametrize("source", ["", " "])
def test_an_empty_source_is_not_the_current_directory(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write(tmp_path, {"space": "snas", "arch": {kind: [0] * 14 for kind in KINDS}})
    with pytest.raises(ValueError, match="architecture is empty, expected a file"):
        read_source(source)


def test_a_text_is_called_architecture_once():
    with pytest.raises(ValueError, match=r"^architecture: expected 28 integers, got 3"):
        read_architecture(_small_snas(), "[0, 1, 2]")


def test_missing_file_names_what_there_is():
    with pytest.raises(ValueError, match=r"nowhere.json: cannot be read: No such file.*; published cells are darts_v1"):
        read_source("nowhere.json")
