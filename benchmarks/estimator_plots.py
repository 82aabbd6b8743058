"""From draws of an estimator to what `benchmarks.estimator_variance` shows: statistics, tables, a CSV, two pictures."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.plot.graph import COLOURS
from jaxnas.policies import categorical
from jaxnas.run._environment import environment

Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # x and y of every estimator
DASHES: dict[bool, tuple[Any, ...]] = {False: ("-", (0, (9, 1.5))), True: ((0, (4, 1.5)), (0, (1, 1)))}  # unbiased
PANEL = (7.2, 5.2)  # inches, labels included
COLUMNS = {
    "estimator": "estimator",
    "bias": "bias",
    "error": "error",
    "max_z": "max z",
    "variance": "variance",
    "mse": "mse",
    "cosine": "cosine",
    "cosine_of_mean": "cosine of mean",
    "evaluations": "evaluations",
    "microseconds": "µs",
    "bytes": "bytes",
    "nonfinite": "not finite",
}


class Result(NamedTuple):
    """What was measured of one estimator at one case; `benchmarks.estimator_variance` says what the figures mean."""

    case: str
    estimator: str
    draws: int
    bias: float
    error: float
    max_z: float
    variance: float
    mse: float
    cosine: float
    cosine_of_mean: float
    evaluations: int
    microseconds: float
    bytes: int | None
    nonfinite: int
    exact_gradient: np.ndarray
    mean: np.ndarray
    standard_error: np.ndarray


class Tally:
    """Sums over draws of their distance to the exact gradient, in float64."""

    def __init__(self, truth: np.ndarray):
        self.truth, self.count, self.nonfinite, self.cosines = truth, 0, 0, 0.0
        self.sums, self.squares = np.zeros_like(truth), np.zeros_like(truth)

    def add(self, draws: np.ndarray) -> None:
        finite = np.isfinite(draws).all(-1)
        self.nonfinite += int((~finite).sum())
        draws = draws[finite].astype(np.float64)
        self.count += len(draws)
        self.sums += (draws - self.truth).sum(0)
        self.squares += ((draws - self.truth) ** 2).sum(0)
        lengths = np.linalg.norm(draws, axis=-1) * np.linalg.norm(self.truth)
        self.cosines += float(np.divide(draws @ self.truth, lengths, np.zeros(len(draws)), where=lengths > 0).sum())

    def figures(self) -> dict[str, Any]:
        """The entries of a `Result`; NaN where fewer than two draws were finite."""
        n, nan = self.count, math.nan
        if n < 2:
            none = dict.fromkeys(("bias", "error", "max_z", "variance", "mse", "cosine", "cosine_of_mean"), nan)
            return {**none, "mean": self.truth * nan, "standard_error": self.truth * nan}
        bias = self.sums / n
        variance = (self.squares - self.sums**2 / n) / (n - 1)
        variance[variance < 1e-12 * self.squares / n + 1e-13 * self.truth**2] = 0.0  # rounding of a constant
        error, mean = np.sqrt(variance / n), self.truth + bias
        off = np.abs(bias) > 1e-5 * np.abs(self.truth).max()
        z = np.divide(np.abs(bias), error, np.where(off, np.inf, 0.0), where=error > 0)
        lengths = np.linalg.norm(mean) * np.linalg.norm(self.truth)
        return {
            "bias": float(np.linalg.norm(bias)),
            "error": float(np.linalg.norm(error)),
            "max_z": float(z.max()),
            "variance": float(variance.sum()),
            "mse": float(self.squares.sum() / n),
            "cosine": self.cosines / n,
            "cosine_of_mean": float(mean @ self.truth / lengths) if lengths else 0.0,
            "mean": mean,
            "standard_error": error,
        }


def report(results: Sequence[Result], cases: Iterable[Any]) -> str:
    """Where it was measured, and a table for each case."""
    where = environment()
    text = [f"Device {where['device']}, jax {where['jax']}, commit {where['commit']}."]
    for case in cases:
        shown = [result for result in results if result.case == case.name]
        if shown:
            norm, nats = np.linalg.norm(case.truth), float(categorical(case.logits).entropy(case.logits))
            about = f"expected loss {case.value:.4g}, norm of its gradient {norm:.4g}, entropy {nats:.3g} nats"
            text += [f"## {case.name}", f"{shown[0].draws + shown[0].nonfinite:,} draws, {about}.", table(shown)]
    return "\n\n".join(text)


def table(results: Sequence[Result]) -> str:
    """The figures of one case, one row an estimator."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    for result in results:
        lines.append("| " + " | ".join(_cell(name, getattr(result, name)) for name in COLUMNS) + " |")
    return "\n".join(lines)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    digits = {"max_z": ".1f", "cosine": ".3f", "cosine_of_mean": ".3f", "microseconds": ".3g"}.get(name, ".4g")
    return format(0.0 if abs(value) < 1e-6 else value, digits)


def rows(results: Iterable[Result]) -> str:
    """The same as CSV, with exact gradient, mean and standard errors of all coordinates, blanks between them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, result in enumerate(results):
        if number == 0:
            writer.writerow(result._fields)
        writer.writerow(" ".join(map(repr, v.tolist())) if isinstance(v, np.ndarray) else v for v in result)
    return text.getvalue()


def variance_temperature(path: Path, found: dict[str, dict[str, list[tuple[float, float]]]], unbiased: Sequence[str]):
    """Draws what `sweep` found, one panel a case."""
    panels = {
        case: {name: tuple(np.array(points).T) for name, points in curves.items()} for case, curves in found.items()
    }
    y_label = "variance of an estimate (trace of the covariance)"
    ticks = sorted({point[0] for curves in found.values() for points in curves.values() for point in points})
    return _draw(path, panels, unbiased, "temperature", y_label, ticks, marker="o", ms=4)


def error_evaluations(path: Path, results: Iterable[Result], unbiased: Sequence[str]) -> Path:
    """Draws the mean squared error of the mean of `n` estimates, `bias^2 + variance / n`, against evaluations spent.

    The bias of estimators in `unbiased` counts as zero, that of the others without what the noise of the draws adds to
    it. An estimator without error, the exact gradient, is left out.
    """
    panels: dict[str, Curves] = {}
    for one in results:
        square = 0.0 if one.estimator in unbiased else max(0.0, one.bias**2 - one.error**2)
        n = np.geomspace(1, max(2.0, one.draws / one.evaluations), 60)
        error = square + one.variance / n
        if np.all(error > 1e-12):
            panels.setdefault(one.case, {})[one.estimator] = (n * one.evaluations, error)
    y_label = "mean squared error of the mean of estimates"
    return _draw(path, panels, unbiased, "evaluations of the loss", y_label)


def _draw(path: Path, panels: dict[str, Curves], unbiased, x_label: str, y_label: str, ticks=(), **look: Any) -> Path:
    """Log-log panels, each curve named at its right end; an estimator looks the same in all of them."""
    from matplotlib.figure import Figure

    looks = _looks(list(dict.fromkeys(name for curves in panels.values() for name in curves)), unbiased)
    columns = 1 if len(panels) < 2 else 2
    number = math.ceil(max(1, len(panels)) / columns)
    longest = max((len(name) for curves in panels.values() for name in curves), default=0)
    width = PANEL[0] + 0.07 * max(0, longest - 24)  # names with many settings need room beside the panel
    figure = Figure(figsize=(width * columns, PANEL[1] * number), facecolor="white", layout="constrained")
    grid = figure.subplots(number, columns, squeeze=False).reshape(-1)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        for name, (x, y) in curves.items():
            axes.plot(x, y, **looks[name], **look)
        axes.set(xscale="log", yscale="log")
        if ticks:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        axes.set_title(title.replace("_", " "), fontsize=11, loc="left", color="#222222")
        axes.set_xlabel(f"{x_label}; dashed and dotted: unbiased for the expected loss", fontsize=9)
        axes.set_ylabel(y_label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(color="#e3e7ec", lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        _name_ends(axes, curves, looks)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _looks(names: list[str], unbiased: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colours in turn among those with a bias and among those without, which have dashes."""
    found = {}
    for kind, dashes in DASHES.items():
        for i, name in enumerate(name for name in names if (name in unbiased) == kind):
            dash = dashes[i // len(COLOURS) % len(dashes)]
            found[name] = {"color": COLOURS[i % len(COLOURS)], "ls": dash, "lw": 1.6}
    return found


def _name_ends(axes: Any, curves: Curves, looks: dict[str, dict[str, Any]]) -> None:
    """Names every curve beside the panel, at the height of its end as far as the others leave room."""
    low, high = np.log(axes.get_ylim())
    ends = {name: ((np.log(y[-1]) - low) / (high - low), x[-1], y[-1]) for name, (x, y) in curves.items()}
    order = sorted(ends, key=lambda name: ends[name][0])
    for name, place in zip(order, _apart([ends[name][0] for name in order], 0.042), strict=True):
        _, x, y = ends[name]
        axes.annotate(
            name,
            (x, y),
            xytext=(1.13, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=looks[name]["color"],
            arrowprops={"arrowstyle": "-", "color": looks[name]["color"], "lw": 0.5, "relpos": (0, 0.5), "shrinkA": 1},
        )


def _apart(places: list[float], gap: float) -> list[float]:
    """Sorted places moved as little as is needed to lie `gap` apart: neighbours that collide are centred together."""
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _start(groups[-1], gap) < _start(groups[-2], gap) + gap * len(groups[-2]):
            last = groups.pop()
            groups[-1] += last
    return [_start(group, gap) + gap * i for group in groups for i in range(len(group))]


def _start(group: list[float], gap: float) -> float:
    """Where the lowest of a group lies when the group keeps its mean, as far as it stays above zero."""
    return max(0.0, sum(group) / len(group) - gap * (len(group) - 1) / 2)
