"""Every estimator by name, with what one asks of it before using it: the table of the README and of the benchmark."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from jaxnas import relaxations
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
from jaxnas.relaxations import gumbel_rao

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


_EXPECTED, _RELAXED, _MIXTURE = "expected loss", "expected loss of relaxed samples", "loss of the mixture"


def _gumbel_rao(*, samples: int = 10, **settings: Any) -> Estimator:
    return pathwise(gumbel_rao(samples), **settings)


def _pathwise(name: str, paper: str, unbiased: str = "no", make: Callable[..., Estimator] | None = None) -> Entry:
    """A row of `pathwise`; straight-through relaxations differentiate the loss at architectures only."""
    make = partial(pathwise, vars(relaxations)[name]) if make is None else make
    return Entry(make, f"pathwise({name})", unbiased, "gates" if unbiased == "no" else "relaxed", "1", paper)


def _reinforce(paper: str, evaluations: str = "S", **settings: Any) -> Entry:
    """A row of `reinforce` with these settings."""
    code = ", ".join(["policy", *(f"{name}={json.dumps(value)}" for name, value in settings.items())])
    make = partial(reinforce, **settings)
    return Entry(make, f"reinforce({code})", _EXPECTED, "none", evaluations, paper, any_policy=True)


def _unbiased(make: Callable[..., Estimator], evaluations: str, paper: str, **only: bool) -> Entry:
    """A row of another estimator that is unbiased, and needs the loss alone unless it is evaluated between options."""
    derivatives = "relaxed" if "relaxed" in evaluations else "none"
    return Entry(make, f"{make.__name__}()", _EXPECTED, derivatives, evaluations, paper, **only)


def _gates(make: Callable[..., Estimator], paper: str, **only: bool) -> Entry:
    """A row of an estimator that asks for the gates of operations that do not run."""
    return Entry(make, f"{make.__name__}()", "no", "gates", "1", paper, **only)


ESTIMATORS: dict[str, Entry] = {
    "exact": Entry(exact, "exact(policy)", _EXPECTED, "none", "all", "enumeration", any_policy=True),
    "softmax": _pathwise("softmax", "Liu et al. 2019, 1806.09055", _MIXTURE),
    "gumbel_softmax": _pathwise(
        "gumbel_softmax",
        "Maddison et al. 2017, 1611.00712; Jang et al. 2017, 1611.01144; Xie et al. 2019, 1812.09926",
        _RELAXED,
    ),
    "st_softmax": _pathwise("st_softmax", "Bengio et al. 2013, 1308.3432"),
    "st_gumbel": _pathwise("st_gumbel", "Jang et al. 2017, 1611.01144"),
    "gumbel_rao": _pathwise("gumbel_rao(10)", "Paulus et al. 2021, 2010.04838", make=_gumbel_rao),
    "reinmax": _pathwise("reinmax", "Liu et al. 2023, 2304.08612"),
    "binary_gate": _gates(binary_gate, "Cai et al. 2019, 1812.00332"),
    "two_path_gate": _gates(two_path_gate, "Cai et al. 2019, 1812.00332"),
    "gdas": _gates(gdas, "Dong and Yang 2019, 1910.04465", supernet=True),
    "reinforce": _reinforce("Williams 1992"),
    "reinforce_moving_average": _reinforce("Williams 1992", baseline="moving_average"),
    "reinforce_self_critical": _reinforce("Rennie et al. 2017, 1612.00563", "S + 1", baseline="self_critical"),
    "reinforce_leave_one_out": _reinforce("Kool et al. 2019", baseline="leave_one_out", num_samples=2),
    "without_replacement": _unbiased(without_replacement, "2", "Kool et al. 2020, 2002.06043"),
    "arsm": _unbiased(arsm, "K(K-1)/2 + 1", "Yin et al. 2019, 1905.01413"),
    "disarm_sb": _unbiased(disarm_sb, "2", "Dong et al. 2021, 2106.08056"),
    "disarm_iw": _unbiased(disarm_iw, "2", "Dong et al. 2021, 2106.08056"),
    "arm": _unbiased(arm, "2", "Yin and Zhou 2019, 1807.11143", binary=True),
    "disarm": _unbiased(disarm, "2", "Dong et al. 2020, 2006.10680", binary=True),
    "rebar": _unbiased(rebar, "1 + 2 relaxed", "Tucker et al. 2017, 1703.07370"),
    "relax": _unbiased(relax, "1 + 2 relaxed", "Grathwohl et al. 2018, 1711.00123"),
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
    # A setting that the factory does not have raises TypeError there.
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
