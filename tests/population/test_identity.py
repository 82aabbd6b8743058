"""A folder of checkpoints belongs to one population: its key, members, data and recipe."""

import jax
import numpy as np
import pytest

from jaxnas.population import train_population
from tests.population.families import ARCHS, DATA, FAMILY, KEY, RATES, RECIPE, rows

SHORT = RECIPE._replace(steps=4, judge_at=())
IMAGES, LABELS = DATA.train
OTHERS = {
    "key": {"key": jax.random.key(2)},
    "images": {"data": DATA._replace(train=(IMAGES.at[3, 1].add(0.5), LABELS))},
    "labels": {"data": DATA._replace(train=(IMAGES, LABELS.at[3].set((LABELS[3] + 1) % 3)))},
    "part": {"data": DATA._replace(parts={**DATA.parts, "test": DATA.parts["validation"]})},
    "rates": {"rates": RATES[:2] * 2},
    "members": {"archs": rows(ARCHS, [1, 0])},
    "seeds": {"seeds": np.array([0, 1])},
    "batch size": {"recipe": SHORT._replace(batch_size=8)},
    "steps": {"recipe": SHORT._replace(steps=5)},
    "moments": {"recipe": SHORT._replace(judge_at=(2,))},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints of a finished population of two."""
    path = tmp_path_factory.mktemp("population")
    train(path)
    return path


def train(folder, **changes):
    given = {"key": KEY, "family": FAMILY, "archs": rows(ARCHS, [0, 1]), "data": DATA, "recipe": SHORT}
    settings = {"rates": RATES[:2], "strategy": "map", "chunk": 2, "directory": folder, **changes}
    positional = [settings.pop(name, value) for name, value in given.items()]
    return train_population(*positional, **settings)


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_another_population_is_refused(folder, changes):
    with pytest.raises(ValueError, match=r"population is \[.*\], expected"):
        train(folder, **changes)


def test_the_same_population_is_read(folder):
    again = train(folder)
    assert again.good.all()
