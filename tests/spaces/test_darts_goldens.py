"""Numbers that follow from the definitions of DARTS and SNAS, and the two rules by which they read architectures."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnas.costs import cost, count_parameters, space_tables
from jaxnas.spaces.darts import PRIMITIVES, PUBLISHED, darts_space, snas_space

SHORT = {
    "none": "none",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}
DARTS_V1 = {
    "normal": "sep3(1) sep3(0) | skip(0) sep3(1) | skip(0) sep3(1) | sep3(0) skip(2)",
    "reduce": "max(0) max(1) | skip(2) max(0) | max(0) skip(2) | skip(2) avg(0)",
}
DARTS_V2 = {
    "normal": "sep3(0) sep3(1) | sep3(0) sep3(1) | sep3(1) skip(0) | skip(0) dil3(2)",
    "reduce": "max(0) max(1) | skip(2) max(1) | max(0) skip(2) | skip(2) max(1)",
}
MILD = {
    "normal": "sep3(0) sep3(1) | skip(0) dil3(1) | skip(0) skip(1) | skip(0) sep3(1)",
    "reduce": "max(0) max(1) | max(1) skip(2) | max(1) skip(2) | max(0) dil5(2)",
}
MODERATE = {
    "normal": "dil5(0) skip(1) | sep3(0) skip(1) | skip(0) skip(1) | sep3(0) dil5(1)",
    "reduce": "max(0) max(1) | sep5(0) dil5(1) | sep5(0) sep5(1) | sep5(0) sep5(1)",
}
AGGRESSIVE = {
    "normal": "sep5(0) skip(1) | skip(0) skip(1) | dil5(1) skip(0) | skip(0) dil5(1)",
    "reduce": "sep5(0) | sep5(0) | |",
}
DERIVE_DARTS = jax.jit(darts_space().derive)
IMAGES = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def _genotype(cells: dict[str, str]) -> dict[str, list]:
    def entry(word):
        name, source = word.rstrip(")").split("(")
        return [SHORT[name], int(source)]

    return {kind: [[entry(word) for word in node.split()] for node in text.split("|")] for kind, text in cells.items()}


def _parameters(space, arch, **changes) -> int:
    network = space.about.network(arch, **changes)
    return count_parameters(jax.eval_shape(network.init, jax.random.key(0), IMAGES)["params"])


def _scores(value: float = 0.0) -> dict[str, np.ndarray]:
    return {kind: np.full((14, 8), value, np.float32) for kind in ("normal", "reduce")}


# Counts of parameters


def test_search_network_has_as_many_parameters_as_published_code():
    shapes = jax.eval_shape(darts_space(lowering="lax").init, jax.random.key(0), IMAGES)
    assert count_parameters(shapes) == 1_930_618


def test_first_order_network_of_darts():
    space = darts_space(lowering="lax")
    arch = space.about.parse(_genotype(DARTS_V1))
    assert _parameters(space, arch, channels=36, cells=20) == 3_169_414
    assert cost(space_tables(space, (32, 32, 3), channels=36, cells=20)["parameters"], arch) == 3_169_414


@pytest.mark.parametrize(("pool_norm", "expected"), [(False, 2_661_382), (True, 2_663_542)])
def test_mild_network_of_snas(pool_norm, expected):
    space = snas_space(lowering="lax")
    arch = space.about.parse(_genotype(MILD))
    table = space_tables(space, (32, 32, 3), channels=36, cells=20, pool_norm=pool_norm)["parameters"]
    assert cost(table, arch) == expected
    if pool_norm:  # what SNAS retrains
        assert _parameters(space, arch, channels=36, cells=20) == expected


@pytest.mark.parametrize("released", [MILD, MODERATE, AGGRESSIVE, DARTS_V1, DARTS_V2])
def test_released_cells_count_the_same_by_table_and_by_shape(released):
    space = snas_space(channels=8, cells=3, lowering="lax")
    arch = space.about.parse(_genotype(released))
    assert cost(space_tables(space, (32, 32, 3))["parameters"], arch) == _parameters(space, arch)


# Sizes of the spaces


def test_size_of_snas_is_the_product_over_its_candidates():
    about = snas_space().about
    per_cell = {kind: math.prod(len(about.operations[kind]) for _ in ends) for kind, ends in about.edges.items()}
    assert per_cell == {"normal": 4_398_046_511_104, "reduce": 4_398_046_511_104}  # 8^14
    assert about.size == math.prod(per_cell.values()) == 8**28


def test_size_of_darts_counts_pairs_of_edges_and_seven_operations_on_each():
    about = darts_space().about
    per_cell = {}
    for kind, ends in about.edges.items():
        real = [name for name in about.operations[kind] if name != "none"]
        sources = [[s for s, target in ends if target == node] for node in sorted({target for _, target in ends})]
        per_cell[kind] = math.prod(len(list(itertools.combinations(s, 2))) * len(real) ** 2 for s in sources)
    assert per_cell == {"normal": 1_037_664_180, "reduce": 1_037_664_180}  # 180 * 7^8
    assert about.size == math.prod(per_cell.values())


@pytest.mark.parametrize(("factory", "per_cell"), [(darts_space, 48), (snas_space, 243)])
def test_size_counts_what_derive_returns(factory, per_cell):
    space = factory(nodes=2, operations=("none", "skip_connect", "max_pool_3x3"))
    every = np.array(list(itertools.product(range(3), repeat=5)), np.int32)
    scores = 20.0 * jax.nn.one_hot(every, 3)
    derived = jax.jit(jax.vmap(space.derive))({"normal": scores, "reduce": scores})
    kept = np.all(np.asarray(derived["normal"]) == every, -1)
    assert kept.sum() == per_cell
    assert space.about.size == per_cell**2
    np.testing.assert_array_equal(np.asarray(derived["reduce"])[kept], every[kept])


# Derivation


def test_darts_ranks_edges_by_softmax_with_none_in_it():
    scores = _scores()
    # Node 4 (rows 5 to 8): row 5 has the greatest raw score, but a larger one of `none` beside it.
    scores["normal"][5, PRIMITIVES.index("sep_conv_5x5")] = 5.0
    scores["normal"][5, PRIMITIVES.index("none")] = 12.0
    for row, value in ((6, 2.0), (7, 3.0), (8, 1.0)):
        scores["normal"][row, PRIMITIVES.index("sep_conv_3x3")] = value
    raw = [5 + row for row in np.argsort(-scores["normal"][5:9, 1:].max(-1))[:2]]
    assert raw == [5, 7]
    chosen = np.asarray(DERIVE_DARTS(scores)["normal"])[5:9]
    np.testing.assert_array_equal(chosen, [0, 4, 4, 0])  # rows 6 and 7


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 30.0]), st.sampled_from([0.0, 5.0, 100.0]))
def test_darts_keeps_two_edges_per_node_and_never_none(seed, scale, none):
    rng = np.random.default_rng(seed)
    scores = {kind: (scale * rng.normal(size=(14, 8))).astype(np.float32) for kind in ("normal", "reduce")}
    for leaf in scores.values():
        leaf[rng.random(14) < 0.5, 0] += none
    genotype = darts_space().about.genotype(DERIVE_DARTS(scores))
    for kind in ("normal", "reduce"):
        assert [len(node) for node in genotype[kind]] == [2, 2, 2, 2]
        assert all(name != "none" for node in genotype[kind] for name, _ in node)
        assert all(len({source for _, source in node}) == 2 for node in genotype[kind])


def test_ties_go_to_the_lowest_index():
    equal = _scores()
    first_two = [["max_pool_3x3", 0], ["max_pool_3x3", 1]]
    darts, snas = darts_space(), snas_space()
    assert darts.about.genotype(DERIVE_DARTS(equal)) == {kind: [first_two] * 4 for kind in ("normal", "reduce")}
    np.testing.assert_array_equal(snas.derive(equal)["normal"], np.zeros(14))


def test_snas_takes_the_best_of_all_eight_on_every_edge():
    space = snas_space()
    for k in range(8):
        scores = _scores()
        scores["normal"][:, k] = 0.1
        scores["reduce"][3, k] = -0.1
        arch = space.derive(scores)
        np.testing.assert_array_equal(arch["normal"], np.full(14, k))
        np.testing.assert_array_equal(arch["reduce"], [0] * 3 + [1 if k == 0 else 0] + [0] * 10)
    genotype = space.about.genotype({kind: np.zeros(14, int) for kind in ("normal", "reduce")})
    assert [len(node) for node in genotype["normal"]] == [2, 3, 4, 5]
    assert sum(name == "none" for node in genotype["reduce"] for name, _ in node) == 14


def test_derive_ignores_a_constant_per_edge_and_runs_under_jit_and_vmap():
    scores = np.random.default_rng(0).normal(size=(3, 14, 8)).astype(np.float32)
    batch = {"normal": scores, "reduce": scores[::-1].copy()}
    shifted = jax.tree.map(lambda leaf: leaf + np.arange(14, dtype=np.float32)[None, :, None], batch)
    for space in (darts_space(), snas_space()):
        derive = jax.jit(space.derive)
        expected = [derive(jax.tree.map(lambda leaf, i=i: leaf[i], batch)) for i in range(3)]
        expected = jax.tree.map(lambda *leaves: np.stack(leaves), *expected)
        for given_scores in (batch, shifted):
            found = jax.jit(jax.vmap(space.derive))(given_scores)
            jax.tree.map(np.testing.assert_array_equal, found, expected)
            assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.int32)}


# Genotypes


@pytest.mark.parametrize("released", [DARTS_V1, DARTS_V2])
def test_darts_genotype_has_eight_entries_per_cell(released):
    space = darts_space()
    arch = space.about.parse(_genotype(released))
    for kind in ("normal", "reduce"):
        assert np.sum(arch[kind] != 0) == 8
        found = space.about.genotype(arch)[kind]
        assert [sorted(node, key=lambda e: e[1]) for node in _genotype(released)[kind]] == found


def test_published_cells_are_the_released_ones():
    names = {"darts_v1": DARTS_V1, "darts_v2": DARTS_V2, "snas_mild": MILD, "snas_moderate": MODERATE}
    names["snas_aggressive"] = AGGRESSIVE
    assert set(PUBLISHED) == set(names)
    for name, cells in names.items():
        parsed = snas_space().about.parse(PUBLISHED[name])
        jax.tree.map(np.testing.assert_array_equal, parsed, snas_space().about.parse(_genotype(cells)))


architectures = st.fixed_dictionaries(
    {kind: st.lists(st.integers(0, 7), min_size=14, max_size=14) for kind in ("normal", "reduce")}
)


@settings(deadline=None, max_examples=50)
@given(architectures, st.randoms(use_true_random=False))
def test_snas_genotype_comes_back_whatever_the_order_inside_a_node(values, random):
    about = snas_space().about
    genotype = about.genotype(values)
    for kind in ("normal", "reduce"):
        for node in genotype[kind]:
            random.shuffle(node)
        assert sum(len(node) for node in genotype[kind]) == 14
    parsed = about.parse(genotype)
    assert {kind: leaf.tolist() for kind, leaf in parsed.items()} == values


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_darts_genotype_comes_back(seed):
    space = darts_space()
    rng = np.random.default_rng(seed)
    arch = DERIVE_DARTS({kind: rng.normal(size=(14, 8)).astype(np.float32) for kind in ("normal", "reduce")})
    parsed = space.about.parse(space.about.genotype(arch))
    jax.tree.map(np.testing.assert_array_equal, parsed, jax.tree.map(np.asarray, arch))


@pytest.mark.parametrize("entry", [["sep_conv_9x9", 0], ["skip_connect", 2], ["skip_connect", -1]])
def test_genotype_with_an_unknown_edge_or_operation_is_refused(entry):
    genotype = _genotype(DARTS_V1)
    genotype["normal"][0][0] = entry
    for space in (darts_space(), snas_space()):
        with pytest.raises(ValueError, match="no edge"):
            space.about.parse(genotype)
