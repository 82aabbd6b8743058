"""Searches beside each other: what each has found over time, child by child, and fronts of two objectives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.errors import UserError
from jaxnas.plot.graph import COLOURS

__all__ = ["fronts", "history", "points", "progress", "top_means"]

SIZE = (5.6, 3.8)  # inches
INK = "#222222"


def top_means(fitness: np.ndarray, count: int) -> np.ndarray:
    """The mean of the `count` best children so far, by which Zoph and Le (2017, figure 6) compare two searches.

    Args:
      fitness: what each child of a search reached, in the order of proposal and to be minimised, `[..., T]`; not finite
        for a child that failed, which is never among the best.
      count: number of best children whose mean is taken, at least 1.

    Returns:
      Float64 `[..., T]`: at `t` the mean of the `count` least finite values among the first `t + 1`; NaN as long as
      there are fewer.

    Raises:
      UserError: a `count` below 1.

    Example:
      >>> from jaxnas.plot import top_means
      >>> top_means(np.array([3.0, 1.0, np.nan, 2.0]), 2).tolist()
      [nan, 2.0, 2.0, 1.5]

    References:
      Zoph and Le, 2017, "Neural architecture search with reinforcement learning", arXiv 1611.01578, figure 6.
    """
    if count < 1:
        raise UserError(f"count is {count}, expected at least 1")
    values = np.where(np.isfinite(fitness), fitness, np.inf).astype(float)
    best, means = np.full((*values.shape[:-1], count), np.inf), np.empty(values.shape)
    for place in range(values.shape[-1]):
        # The new child takes the place of the worst of the best, if it is better.
        best = np.sort(np.concatenate([best, values[..., place, None]], -1), -1)[..., :count]
        means[..., place] = best.mean(-1)
    return np.where(np.isfinite(means), means, np.nan)


def progress(
    path: str | Path, times: np.ndarray, found: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str, title: str = ""
) -> Path:
    """Draws the mean over seeds of what each search has found by a time, with the 95 per cent band of that mean.

    The axis reaches from the least to the greatest of these means after a twentieth of the time, since the first few
    evaluations would take most of the height.

    Args:
      path: where the picture goes; the suffix decides the format.
      times: the times at which the searches are looked at, `[G]`.
      found: by name of the search what each of `S` seeds has found by these times, `[S, G]`, the more the better; NaN
        before the first evaluation.
      xlabel: label of the times, with the unit.
      ylabel: label of what is found, with the unit.
      title: text above the picture.

    Returns:
      The path.
    """
    figure, axes = _axes(xlabel, ylabel, title)
    settled: list[float] = []
    for (name, values), colour in zip(found.items(), COLOURS * 3, strict=False):
        # The mean over seeds where most of them have found something, and 1.96 standard errors.
        counted = np.isfinite(values).sum(0)
        shown = counted > len(values) / 2
        mean = np.nanmean(values[:, shown], 0)
        half = 1.96 * np.nanstd(values[:, shown], 0, ddof=1) / np.sqrt(counted[shown]) if len(values) > 1 else 0 * mean
        axes.plot(times[shown], mean, color=colour, lw=1.6, label=name)
        settled += mean[times[shown] >= times[-1] / 20].tolist()
        axes.fill_between(times[shown], mean - half, mean + half, color=colour, alpha=0.2, lw=0)
    if settled:
        margin = 0.06 * (max(settled) - min(settled))
        axes.set_ylim(min(settled) - margin / 2, max(settled) + margin if margin else None)
    axes.legend(fontsize=8.5, frameon=False, loc="lower right")
    return _saved(figure, path)


def history(path: str | Path, found: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str, title: str = "") -> Path:
    """Draws every child of some searches as a dot, and the least value so far of each search as a line.

    Args:
      path: where the picture goes; the suffix decides the format.
      found: by name of the search one value for each child in the order of proposal, `[T]`, the less the better. A
        child whose value is not finite has no dot.
      xlabel: label of the axis on which children are counted.
      ylabel: label of the values, with the unit.
      title: text above the picture.

    Returns:
      The path.
    """
    figure, axes = _axes(xlabel, ylabel, title)
    for (name, values), colour in zip(found.items(), COLOURS * 3, strict=False):
        # Dots for the children that did not fail; the line is the least value so far.
        good, number = np.isfinite(values), np.arange(1, len(values) + 1)
        axes.plot(number[good], values[good], ".", color=colour, ms=4, alpha=0.5)
        least = np.minimum.accumulate(np.where(good, values, np.inf))
        known = np.isfinite(least)
        axes.step(number[known], least[known], where="post", color=colour, lw=1.6, label=name)
    axes.legend(fontsize=8.5, frameon=False)
    return _saved(figure, path)


def fronts(
    path: str | Path,
    cloud: np.ndarray,
    found: Mapping[str, np.ndarray],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
) -> Path:
    """Draws fronts of two objectives, both to be minimised, as staircases over a cloud of all points.

    Args:
      path: where the picture goes; the suffix decides the format.
      cloud: all points, `[N, 2]`, drawn pale where they lie inside the range of the fronts.
      found: by name the points of a front, `[F, 2]`.
      xlabel: label of the first objective, with the unit.
      ylabel: label of the second objective, with the unit.
      title: text above the picture.

    Returns:
      The path.
    """
    figure, axes = _axes(xlabel, ylabel, title)
    # The range of the fronts, and the points of the cloud that do not lie beyond it.
    every = np.concatenate(list(found.values()))
    low, high = every.min(0), every.max(0)
    margin = np.where(high > low, high - low, 1.0) * 0.08
    near = cloud[np.all(cloud <= high + margin, 1)]
    axes.plot(*near.T, ".", color="#c6ccd5", ms=2.5, zorder=0)
    for (name, points), colour, marker in zip(found.items(), COLOURS * 3, "osD^v<>" * 3, strict=False):
        # A staircase: to the right of a point its second objective is still the best.
        ordered = points[np.argsort(points[:, 0])]
        axes.step(*ordered.T, where="post", color=colour, lw=1.3, alpha=0.8)
        axes.plot(*ordered.T, marker, color=colour, ms=4, label=name)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    axes.legend(fontsize=8.5, frameon=False)
    return _saved(figure, path)


def points(path: str | Path, found: Mapping[str, Any], *, xlabel: str, ylabel: str, title: str = "") -> Path:
    """Draws groups of points, and the mean of each group larger.

    Args:
      path: where the picture goes; the suffix decides the format.
      found: by name the points of a group, `[n, 2]`.
      xlabel: label of the first column, with the unit.
      ylabel: label of the second column, with the unit.
      title: text above the picture.

    Returns:
      The path.
    """
    figure, axes = _axes(xlabel, ylabel, title)
    means = [np.mean(np.asarray(group, float), 0) for group in found.values()]
    axes.plot(*np.transpose(means), "-", color="#c6ccd5", lw=1.2, zorder=0)
    for (name, group), mean, colour in zip(found.items(), means, COLOURS * 3, strict=False):
        axes.plot(*np.transpose(np.asarray(group, float)), "o", color=colour, ms=4, alpha=0.6)
        axes.plot(*mean, "D", color=colour, ms=8, mec="white", label=name)
    axes.legend(fontsize=8.5, frameon=False)
    return _saved(figure, path)


def _axes(xlabel: str, ylabel: str, title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#e3e7ec", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.ticklabel_format(useOffset=False)
    return figure, axes


def _saved(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
