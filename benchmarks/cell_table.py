"""How far a table of recurrent cells can be trusted: its noise, its failures, and its best cells.

    python -m benchmarks.cell_table [FILE]

FILE is what `python -m experiments.exhaustive_cells` wrote; the bundled table if not given. Cells of one class share
their results, so every figure counts a class once. Figures of noise are over the classes with three runs below 10 nats.
The best tenth is chosen by the first run and compared by the other two, so that luck in the choice does not count.
"""

import argparse
from typing import NamedTuple

import jax
import numpy as np
from scipy.stats import spearmanr

from jaxnas.architectures import decisions
from jaxnas.spaces.nas_rl import recurrent_cell_space
from jaxnas.spaces.nas_rl.symmetry import cell_representatives
from jaxnas.tabular import Table
from jaxnas.tabular.cell_table import cells, exhaustive_cells

BLOWN_UP = 10.0  # nats; a uniform guess among 65 characters has 4.2


class Noise(NamedTuple):
    """The spread of one metric, in nats where it has a unit.

    Attributes:
      median: the median over classes; a few that all but diverged have thousands of nats.
      best: the least value of a class.
      between_seeds: the deviation between runs of one class, root of the mean square.
      between_seeds_median: the median of that deviation over classes.
      between_classes: the deviation between the means of classes.
      rank: Spearman's correlation of two runs, mean over the three pairs.
      rank_best: the same among the best tenth.
    """

    median: float
    best: float
    between_seeds: float
    between_seeds_median: float
    between_classes: float
    rank: float
    rank_best: float


def noise(mean: np.ndarray, runs: np.ndarray) -> Noise:
    """The spread of a metric.

    Args:
      mean: the value of each class, `[C]`, NaN where all runs diverged.
      runs: the single runs, `[C, R]`, NaN where there is none. Unless `R` is 3 and thirty classes have all of them
        below `BLOWN_UP`, the spread is NaN.
    """
    three = runs[(runs < BLOWN_UP).all(1)]
    if runs.shape[1] != 3 or len(three) < 30:
        return Noise(float(np.nanmedian(mean)), float(np.nanmin(mean)), *[np.nan] * 5)
    spread = three.std(1, ddof=1)
    best = np.argsort(three[:, 0])[: len(three) // 10]
    pairs = [spearmanr(three[:, i], three[:, j]).statistic for i, j in ((0, 1), (0, 2), (1, 2))]
    return Noise(
        float(np.nanmedian(mean)),
        float(np.nanmin(mean)),
        float(np.sqrt((spread**2).mean())),
        float(np.median(spread)),
        float(three.mean(1).std(ddof=1)),
        float(np.mean(pairs)),
        float(spearmanr(three[best, 1], three[best, 2]).statistic),
    )


def steps_of(table: Table) -> list[int]:
    """The numbers of steps after which cells were judged."""
    names = [name.split("_") for name in table.metrics if name.startswith("test_nats_") and not name.endswith("_runs")]
    return sorted(int(name[-1]) for name in names)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="a table.npz; the bundled table if not given")
    args = parser.parse_args(argv)
    table = exhaustive_cells(args.file) if args.file else cells()
    space = recurrent_cell_space(2)
    first, class_of = np.unique(cell_representatives(space), return_inverse=True)
    by_class = {name: np.asarray(values)[first] for name, values in table.metrics.items()}
    steps = steps_of(table)
    last = f"nats_{steps[-1]}"
    # Spread and correlations at every judgement.
    print(f"| steps | {' | '.join(Noise._fields)} | with {last} | validation with test |\n|{'---:|' * 10}")
    for step in steps:
        metric = f"test_nats_{step}"
        found = noise(by_class[metric], by_class[f"{metric}_runs"])
        pairs = (f"test_{last}", metric), (f"valid_nats_{step}", metric)
        alike = [spearmanr(by_class[a], by_class[b], nan_policy="omit").statistic for a, b in pairs]
        print(f"| {step} | {' | '.join(f'{value:.3f}' for value in (*found, *alike))} |")
    # Failures, by classes and by cells.
    failed, runs = by_class["diverged"], by_class[f"test_{last}_runs"]
    lost = f"{int((failed == 1).sum())} classes, {int((table.metrics['diverged'] == 1).sum())} cells"
    print(
        f"\n{int(np.isfinite(failed).sum())} of {len(first)} classes have runs, {int(np.isfinite(runs).sum())} finite."
    )
    print(f"All runs diverged in {lost}; some did in {int(((failed > 0) & (failed < 1)).sum())} classes.")
    print(f"A network took {float(table.metrics['seconds'][0]):.3f} s.\n")
    # The best cells by validation.
    flat, order = decisions(space.choices), np.argsort(by_class[f"valid_{last}"])
    print("| validation | test | cells | the first of them |\n|---:|---:|---:|---|")
    for number in order[:10]:
        arch = flat.split(np.array(np.unravel_index(first[number], tuple(flat.counts))))
        values = [f"{by_class[f'{part}_{last}'][number]:.3f}" for part in ("valid", "test")]
        text = space.about.genotype(jax.tree.map(np.asarray, arch)) if space.about.genotype else ""
        print(f"| {' | '.join(values)} | {int((class_of == number).sum())} | `{text.replace('|', chr(92) + '|')}` |")


if __name__ == "__main__":
    main()
