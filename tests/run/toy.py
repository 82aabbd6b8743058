"""A regression that trains in a moment, and a configuration."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas.run import Saving

TX = optax.adam(0.05)
NEVER = Saving(seconds=1e9)


def make_data() -> dict[str, jax.Array]:
    x = jax.random.normal(jax.random.key(7), (128, 8))
    return {"x": x, "y": jnp.sin(jnp.sum(x, -1))}


def init_fn(key: jax.Array, data: dict[str, jax.Array]) -> dict:
    params = {"w": 0.3 * jax.random.normal(key, (data["x"].shape[1], 16)), "v": jnp.zeros(16)}
    return {"params": params, "opt_state": TX.init(params), "empty": jnp.zeros((0, 2))}


def step_fn(key: jax.Array, state: dict, data: dict[str, jax.Array]) -> tuple[dict, dict]:
    batch = jax.random.randint(key, (32,), 0, 128)

    def loss_fn(params):
        out = jnp.tanh(data["x"][batch] @ params["w"]) @ params["v"]
        return jnp.mean((out - data["y"][batch]) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(state["params"])
    updates, opt_state = TX.update(grads, state["opt_state"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    return state | {"params": params, "opt_state": opt_state}, {
        "loss": loss,
        "grads": {"norm": optax.tree.norm(grads)},
    }


def digest(tree) -> str:
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))).hexdigest()


@dataclasses.dataclass(frozen=True)
class Search:
    """The search.

    Attributes:
      steps: number of steps.
    """

    steps: int = 10
    rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration."""

    search: Search = Search()
    seed: int = 0
    data: str = "digits"


PRESETS = {"digits": Config(), "cifar10": Config(Search(steps=1000), data="cifar10")}
