"""Mistakes in the learning rule of NAS-RL and in its rewards."""

from tests.mutants.mutant import Mutant

RULE = "jaxnas/searchers/_nas_rl.py"
REWARDS = "jaxnas/searchers/rewards.py"
SLOTS = "jaxnas/searchers/outstanding.py"
TESTS = "tests/searchers/test_nas_rl.py"
REPLICAS = "tests/searchers/test_nas_rl_replicas.py"
BY_HAND = f"{TESTS}::test_steps_are_those_by_hand"
CURVES = "tests/searchers/test_nas_rl_rewards.py"

MUTANTS = (
    Mutant(
        "present-reward",
        "the baseline of NAS-RL counts the rewards of the present batch",
        RULE,
        "rewards - state.baseline.total / jnp.maximum(state.baseline.weight, 1 - baseline_decay)",
        "rewards - (b := average_with(state.baseline, jnp.mean(rewards), baseline_decay)).total / b.weight",
        (BY_HAND,),
    ),
    Mutant(
        "uncorrected-baseline",
        "the baseline of NAS-RL is not corrected for its start",
        RULE,
        " / jnp.maximum(state.baseline.weight, 1 - baseline_decay)",
        "",
        (f"{TESTS}::test_a_constant_reward_teaches_nothing_after_the_first_batch",),
    ),
    Mutant(
        "downhill-reward",
        "NAS-RL descends in its reward",
        RULE,
        "weights = -advantages / len(advantages)",
        "weights = advantages / len(advantages)",
        (f"{TESTS}::test_a_bandit_with_two_arms_is_solved_with_every_seed",),
    ),
    Mutant(
        "diverged-left-out",
        "a child of NAS-RL that has diverged teaches nothing",
        RULE,
        "_ascend(policy_for(told.first), tx, ppo, state, told.policy_params, archs, advantages)",
        "_ascend(policy_for(told.first), tx, ppo, state, told.policy_params, archs,"
        " jnp.where(jnp.isfinite(values), advantages, 0))",
        (BY_HAND,),
    ),
    Mutant(
        "fresh-gradient",
        "NAS-RL takes the gradient of a stale batch at the present parameters",
        RULE,
        "score_gradient(policy, sampled_with, archs, weights)",
        "score_gradient(policy, state.policy_params, archs, weights)",
        (REPLICAS,),
    ),
    Mutant(
        "stale-step",
        "NAS-RL steps from the parameters that a batch was sampled with",
        RULE,
        "archs, weights), state.policy_params, state.opt)",
        "archs, weights), sampled_with, state.opt)",
        (REPLICAS,),
    ),
    Mutant(
        "never-oldest",
        "the oldest parameters that staleness allows are never taken",
        RULE,
        "jax.random.randint(key_age, (), 0, staleness + 1)",
        "jax.random.randint(key_age, (), 0, max(staleness, 1))",
        (f"{REPLICAS}::test_every_age_up_to_the_greatest_is_equally_frequent",),
    ),
    Mutant(
        "depth-of-now",
        "children told late are judged by the present depth",
        RULE,
        "policy_for(told.first)",
        "policy_for(state.asked - batch_size)",
        (f"{TESTS}::test_children_that_are_told_late_are_judged_by_the_depth_at_which_they_were_asked",),
    ),
    Mutant(
        "length-of-next",
        "the number of tokens that NAS-RL reports is that of the next ask",
        RULE,
        "growth(state.asked - batch_size)",
        "growth(state.asked)",
        (f"{TESTS}::test_growth_changes_no_shape_and_is_compiled_once",),
    ),
    Mutant(
        "one-sided-clip",
        "PPO clips ratios above one only",
        RULE,
        "jnp.clip(ratio, 1 - ppo.clip, 1 + ppo.clip)",
        "jnp.minimum(ratio, 1 + ppo.clip)",
        (f"{TESTS}::test_further_steps_of_ppo_are_those_by_hand_and_the_clip_is_felt",),
    ),
    Mutant(
        "optimistic-clip",
        "PPO takes the greater of the two gains",
        RULE,
        "jnp.maximum(ratio * weights",
        "jnp.minimum(ratio * weights",
        (f"{TESTS}::test_further_steps_of_ppo_are_those_by_hand_and_the_clip_is_felt",),
    ),
    Mutant(
        "ppo-one-step",
        "PPO uses each batch for one step less",
        RULE,
        "fori_loop(0, ppo.steps,",
        "fori_loop(1, ppo.steps,",
        (TESTS,),
    ),
    Mutant(
        "newest-told",
        "of two asks with the same architectures the newer is told",
        SLOTS,
        "jnp.argmin(jnp.where(wanted, outstanding.first, jnp.iinfo(jnp.int32).max))",
        "jnp.argmax(jnp.where(wanted, outstanding.first, -2))",
        (REPLICAS,),
    ),
    Mutant(
        "slot-stays",
        "an ask stays outstanding after it was told",
        SLOTS,
        "outstanding.first.at[slot].set(-1)",
        "outstanding.first",
        (REPLICAS,),
    ),
    Mutant(
        "best-of-all",
        "the best of all judgements is rewarded",
        REWARDS,
        "scores[..., -last:].max(-1)",
        "scores.max(-1)",
        (CURVES,),
    ),
    Mutant(
        "accuracy-squared",
        "the accuracy squared instead of cubed",
        REWARDS,
        "** 3)",
        "** 2)",
        (CURVES,),
    ),
    Mutant(
        "perplexity-itself",
        "the perplexity is not squared",
        REWARDS,
        "jnp.exp(-2 * ",
        "jnp.exp(-1 * ",
        (CURVES,),
    ),
    Mutant(
        "growth-before",
        "networks grow one child late",
        RULE,
        "start + by * (asked // every)",
        "start + by * ((asked - 1) // every)",
        (CURVES,),
    ),
    Mutant(
        "repeats-counted",
        "a child that is proposed again counts once more among the best",
        "experiments/policy_gradient.py",
        "into[first] = values[first]",
        "into[:] = values",
        ("tests/experiments/test_policy_gradient.py",),
    ),
    Mutant(
        "minus-the-objective",
        "the reward of a table's objective is its distance from 0, so that a failure may be the best",
        "experiments/tabular.py",
        "return lambda fitness: worst - fitness",
        "return lambda fitness: -fitness",
        ("tests/experiments/test_tables.py::test_the_reward_on_a_table_is_zero_at_its_worst_whatever_is_wanted",),
    ),
)
