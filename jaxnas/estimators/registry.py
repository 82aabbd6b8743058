"""Every estimator by name, with what one asks of it before using it: the table of the README and of the benchmark."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from jaxnas.base import Estimator, Policy
from jaxnas.errors import UserError
from jaxnas.estimators._arsm import arsm
from jaxnas.estimators._exact import exact
from jaxnas.estimators._gdas import gdas
from jaxnas.estimators._pathwise import pathwise
from jaxnas.estimators._without_replacement import without_replacement
from jaxnas.estimators.binary import arm, disarm
from jaxnas.estimators.control_variates import rebar, relax
from jaxnas.estimators.coupled import disarm_iw, disarm_sb
from jaxnas.estimators.gates import binary_gate, two_path_gate
from jaxnas.estimators.score import reinforce
from jaxnas.relaxations import gumbel_rao, gumbel_softmax, reinmax, softmax, st_gumbel, st_softmax

__all__ = ["ESTIMATORS", "Entry", "build", "table"]


class Entry(NamedTuple):
    """One estimator.

    Attributes:
      make: factory of the estimator, which takes the policy first where `any_policy` is true.
      code: the call that makes it, as a user writes it.
      unbiased: the objective whose gradient is the expectation of the estimate; "no" if there is none.
      derivatives: what the loss must be differentiable in: "none", "gates" at architectures, or "relaxed" between them.
      evaluations: number of evaluations of the loss per estimate; "S" samples, "K" options.
      paper: authors, year, arXiv id.
      binary: whether it is only for decisions between two options.
      supernet: whether it is only for losses that choose through `jaxnas.spaces.parts.mixed_op`.
      any_policy: whether it takes any policy; the others need the logits of independent categoricals.
    """

    make: Callable[..., Estimator]
    code: str
    unbiased: str
    derivatives: str
    evaluations: str
    paper: str
    binary: bool = False
    supernet: bool = False
    any_policy: bool = False


def _gumbel_rao(*, samples: int = 10, **settings: Any) -> Estimator:
    return pathwise(gumbel_rao(samples), **settings)


def _leave_one_out(policy: Policy, *, num_samples: int = 2, **settings: Any) -> Estimator:
    return reinforce(policy, baseline="leave_one_out", num_samples=num_samples, **settings)


_EXPECTED, _RELAXED, _MIXTURE = "expected loss", "expected loss of relaxed samples", "loss of the mixture"

ESTIMATORS: dict[str, Entry] = {
    "exact": Entry(exact, "exact(policy)", _EXPECTED, "none", "all", "enumeration", any_policy=True),
    "softmax": Entry(
        partial(pathwise, softmax), "pathwise(softmax)", _MIXTURE, "relaxed", "1", "Liu et al. 2019, 1806.09055"
    ),
    "gumbel_softmax": Entry(
        partial(pathwise, gumbel_softmax),
        "pathwise(gumbel_softmax)",
        _RELAXED,
        "relaxed",
        "1",
        "Maddison et al. 2017, 1611.00712; Jang et al. 2017, 1611.01144; Xie et al. 2019, 1812.09926",
    ),
    "st_softmax": Entry(
        partial(pathwise, st_softmax), "pathwise(st_softmax)", "no", "gates", "1", "Bengio et al. 2013, 1308.3432"
    ),
    "st_gumbel": Entry(
        partial(pathwise, st_gumbel), "pathwise(st_gumbel)", "no", "gates", "1", "Jang et al. 2017, 1611.01144"
    ),
    "gumbel_rao": Entry(_gumbel_rao, "pathwise(gumbel_rao(10))", "no", "gates", "1", "Paulus et al. 2021, 2010.04838"),
    "reinmax": Entry(
        partial(pathwise, reinmax), "pathwise(reinmax)", "no", "gates", "1", "Liu et al. 2023, 2304.08612"
    ),
    "binary_gate": Entry(binary_gate, "binary_gate()", "no", "gates", "1", "Cai et al. 2019, 1812.00332"),
    "two_path_gate": Entry(two_path_gate, "two_path_gate()", "no", "gates", "1", "Cai et al. 2019, 1812.00332"),
    "gdas": Entry(gdas, "gdas()", "no", "gates", "1", "Dong and Yang 2019, 1910.04465", supernet=True),
    "reinforce": Entry(reinforce, "reinforce(policy)", _EXPECTED, "none", "S", "Williams 1992", any_policy=True),
    "reinforce_moving_average": Entry(
        partial(reinforce, baseline="moving_average"),
        'reinforce(policy, baseline="moving_average")',
        _EXPECTED,
        "none",
        "S",
        "Williams 1992",
        any_policy=True,
    ),
    "reinforce_self_critical": Entry(
        partial(reinforce, baseline="self_critical"),
        'reinforce(policy, baseline="self_critical")',
        _EXPECTED,
        "none",
        "S + 1",
        "Rennie et al. 2017, 1612.00563",
        any_policy=True,
    ),
    "reinforce_leave_one_out": Entry(
        _leave_one_out,
        'reinforce(policy, baseline="leave_one_out", num_samples=2)',
        _EXPECTED,
        "none",
        "S",
        "Kool et al. 2019",
        any_policy=True,
    ),
    "without_replacement": Entry(
        without_replacement, "without_replacement()", _EXPECTED, "none", "2", "Kool et al. 2020, 2002.06043"
    ),
    "arsm": Entry(arsm, "arsm()", _EXPECTED, "none", "K(K-1)/2 + 1", "Yin et al. 2019, 1905.01413"),
    "disarm_sb": Entry(disarm_sb, "disarm_sb()", _EXPECTED, "none", "2", "Dong et al. 2021, 2106.08056"),
    "disarm_iw": Entry(disarm_iw, "disarm_iw()", _EXPECTED, "none", "2", "Dong et al. 2021, 2106.08056"),
    "arm": Entry(arm, "arm()", _EXPECTED, "none", "2", "Yin and Zhou 2019, 1807.11143", binary=True),
    "disarm": Entry(disarm, "disarm()", _EXPECTED, "none", "2", "Dong et al. 2020, 2006.10680", binary=True),
    "rebar": Entry(rebar, "rebar()", _EXPECTED, "relaxed", "1 + 2 relaxed", "Tucker et al. 2017, 1703.07370"),
    "relax": Entry(relax, "relax()", _EXPECTED, "relaxed", "1 + 2 relaxed", "Grathwohl et al. 2018, 1711.00123"),
}


def build(name: str, policy: Policy, **settings: Any) -> Estimator:
    """The estimator of that name.

    Args:
      name: a key of `ESTIMATORS`.
      policy: the policy whose gradient is estimated, independent categoricals unless `ESTIMATORS[name].any_policy`.
      **settings: keyword arguments of the estimator's factory, for example `temperature=0.5`.

    Raises:
      UserError: an unknown name, or a setting that the factory does not have.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnas.policies import categorical
      >>> logits, loss = {"edges": jnp.zeros((1, 2))}, lambda paths, params: (paths.weight["edges"][0, 1], {})
      >>> estimator = build("exact", categorical(logits))
      >>> _, found = jax.jit(estimator.estimate, static_argnums=3)(None, (), logits, loss, {})
      >>> found.policy_grads["edges"].tolist()
      [[-0.25, 0.25]]
    """
    if name not in ESTIMATORS:
        raise UserError(f"unknown estimator {name!r}, accepted are {', '.join(ESTIMATORS)}")
    entry = ESTIMATORS[name]
    try:
        return entry.make(policy, **settings) if entry.any_policy else entry.make(**settings)
    except TypeError as error:
        raise UserError(f"estimator {name!r}: {error}") from None


def table() -> str:
    """The estimators as a table in Markdown, as the README has it."""
    rows = ["| estimator | paper | unbiased for | differentiates the loss in | evaluations |", "|---|---|---|---|---|"]
    for entry in ESTIMATORS.values():
        only = " (two options)" if entry.binary else ""
        cells = (f"`{entry.code}`{only}", entry.paper, entry.unbiased, entry.derivatives, entry.evaluations)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
