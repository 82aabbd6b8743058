"""Mistakes in `jaxnas/data/text.py` and `jaxnas/spaces/nas_rl`: texts, and the recurrent cells that learn them."""

from tests.mutants.mutant import Mutant

TEXT = ("tests/data/test_text.py",)
CELL = ("tests/spaces/test_nas_rl_cell.py",)

MUTANTS = (
    Mutant(
        "vocabulary-of-all-parts",
        "validation and test make the vocabulary too",
        "jaxnas/data/text.py",
        "counts = collections.Counter(parts[0])",
        "counts = collections.Counter(token for part in parts for token in part)",
        TEXT,
    ),
    Mutant(
        "targets-of-now",
        "a target is the token that the network has just read",
        "jaxnas/data/text_windows.py",
        "Window(both[:, :-1], both[:, 1:])",
        "Window(both[:, :-1], both[:, :-1])",
        TEXT,
    ),
    Mutant(
        "memory-after-activation",
        "the memory of a recurrent cell is taken after the activation",
        "jaxnas/spaces/nas_rl/cell.py",
        "CellState(c=jnp.stack(p)[memory], h=a[-1])",
        "CellState(c=jnp.stack(a)[memory], h=a[-1])",
        CELL,
    ),
    Mutant(
        "cell-indices",
        "the two cell indices change places",
        "jaxnas/spaces/nas_rl/cell.py",
        "combination, activation, (memory, inject) = ",
        "combination, activation, (inject, memory) = ",
        CELL,
    ),
    Mutant(
        "unchosen-infinity",
        "an operation that is not chosen sees what the chosen one sees",
        "jaxnas/spaces/nas_rl/cell.py",
        "jnp.where(index == k, arg, jnp.zeros_like(arg))",
        "arg",
        CELL,
    ),
)
