"""Mistakes in the controller of `jaxnas/policies`."""

from tests.mutants.mutant import Mutant

CONTROLLER = "jaxnas/policies/_controller.py"
TESTS = "tests/policies/test_controller.py"
BY_HAND = f"{TESTS}::test_samples_have_the_log_probability_of_a_network_written_by_hand"

MUTANTS = (
    Mutant(
        "controller-forgets",
        "every token of a controller starts from a state of zeros",
        CONTROLLER,
        "_lstm(weights, states[layer], x)",
        "_lstm(weights, (zero, zero), x)",
        (BY_HAND,),
    ),
    Mutant(
        "anchors-exchanged",
        "an earlier anchor point goes through the matrix of the present one",
        CONTROLLER,
        'memory @ weights["previous"]',
        'memory @ weights["current"]',
        (BY_HAND,),
    ),
    Mutant(
        "input-undivided",
        "the input after an anchor point is the mean over the connections, without the one in its divisor",
        CONTROLLER,
        "(1 + jnp.sum(s))",
        "jnp.maximum(1, jnp.sum(s))",
        (BY_HAND,),
    ),
    Mutant(
        "tokens-share-noise",
        "all tokens of a controller are drawn with one key",
        CONTROLLER,
        "keys = jax.vmap(jax.random.fold_in, (None, 0))(key, number)",
        "keys = jnp.broadcast_to(key, number.shape)",
        (f"{TESTS}::test_samples_have_the_frequencies_of_the_policy",),
    ),
    Mutant(
        "tokens-beyond-counted",
        "tokens beyond the length of a controller are taken and counted",
        CONTROLLER,
        "jnp.where(used, leaf, jnp.zeros_like(leaf))",
        "leaf",
        (f"{TESTS}::test_beyond_the_length_there_is_one_architecture",),
    ),
)
