"""The course of a run: what `metrics.jsonl` recorded, one panel per quantity and phase."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.plot.graph import COLOURS

__all__ = ["curves"]

COLUMNS, PANEL = 3, (4.2, 2.7)  # panels side by side, and the size of one in inches
SMOOTHED = 200  # from so many points on a curve is shown with its running mean


class Quantity(NamedTuple):
    """A kind of panel.

    Attributes:
      title: heading of the panel, with the unit.
      takes: whether a metric of this name belongs here.
      log: whether the axis is logarithmic.
      needs_change: whether a curve that is zero throughout says nothing, such as the penalty of a search without one.
    """

    title: str
    takes: Callable[[str], bool]
    log: bool = False
    needs_change: bool = False


def _says(*words: str) -> Callable[[str], bool]:
    return lambda name: any(word in name for word in words)


QUANTITIES = (
    Quantity("gradient norm", _says("norm"), log=True, needs_change=True),
    Quantity("loss [nats]", lambda name: name.endswith("loss")),
    Quantity("accuracy", _says("accuracy")),
    Quantity("entropy of the architecture [nats]", _says("entropy"), needs_change=True),
    Quantity("cost", _says("cost", "latency", "macs", "penalty"), needs_change=True),
    Quantity("temperature", _says("temperature"), needs_change=True),
    Quantity("fitness", _says("fitness")),
)
ORDER = (1, 2, 3, 4, 5, 6, 0)  # of the panels; a metric goes to the first quantity that takes it


class Series(NamedTuple):
    """One curve: steps or epochs `[n]`, as `unit` says, and values `[n]`, NaN where a value was not finite."""

    phase: str
    name: str
    unit: str
    steps: np.ndarray
    values: np.ndarray


def curves(path: str | Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Draws losses, accuracies, entropy, cost, temperature, fitness and gradient norms, as far as they were recorded.

    Phases `retrain/0`, `retrain/1`, ... share panels. A value that is not finite leaves a gap where its step was bad,
    and is left out where it did not apply to the step, such as the policy's loss while the policy rests. Long curves
    are drawn pale below their running mean.

    Args:
      path: file of the picture; the suffix (`.png`, `.svg`, `.pdf`) decides the format.
      records: lines of `metrics.jsonl`: dictionaries with `phase`, `step` and numbers by name, lists ignored. Where
        there is an `epoch`, it takes the place of the step.

    Returns:
      The path.
    """
    from matplotlib.figure import Figure

    # A panel for each quantity of each phase, in rows of at most COLUMNS.
    found = _panels(_series(records))
    columns = min(COLUMNS, max(1, len(found)))
    rows = math.ceil(max(1, len(found)) / columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), facecolor="white", layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes, (title, quantity, series) in zip(grid, found, strict=False):
        _draw(axes, title, quantity, series)
    for axes in grid[len(found) :]:
        axes.axis("off")
    if not found:
        grid[0].text(0.5, 0.5, "nothing recorded", ha="center", va="center", color="#8d95a0")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _series(records: Iterable[Mapping[str, Any]]) -> list[Series]:
    """The scalars of all records by phase and name, in the order in which they first occur.

    A NaN in a record that says that its step was good does not apply to that step.
    """
    points: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for number, record in enumerate(records):
        unit = "epoch" if "epoch" in record else "step"
        for name, value in record.items():
            applies = record.get("nonfinite") != 0 or (value != "NaN" and value == value)
            if name not in ("phase", "step", "epoch") and _is_number(value) and applies:
                where = str(record.get("phase", "")), name, unit
                points.setdefault(where, []).append((record.get(unit, number), float(value)))
    found = [Series(*where, *np.array(rows, float).T) for where, rows in points.items()]
    return [one._replace(values=np.where(np.isfinite(one.values), one.values, np.nan)) for one in found]


def _is_number(value: Any) -> bool:
    """Whether a value is a number, or the text by which JSON lines hold NaN and the infinities."""
    return isinstance(value, int | float) or value in ("NaN", "Infinity", "-Infinity")


def _panels(series: list[Series]) -> list[tuple[str, Quantity, list[Series]]]:
    """Groups curves by the first word of their phase, then by quantity."""
    groups: dict[tuple[str, int], list[Series]] = {}
    for one in series:
        kind = next((i for i, quantity in enumerate(QUANTITIES) if quantity.takes(one.name)), None)
        if kind is None or (QUANTITIES[kind].needs_change and not np.any(np.nan_to_num(one.values))):
            continue
        # Phases `retrain/0`, `retrain/1`, ... share a panel.
        group = groups.setdefault((one.phase.partition("/")[0], kind), [])
        if not any(_same(one, other) for other in group):  # a joint search has one loss under two names
            group.append(one)
    phases = list(dict.fromkeys(phase for phase, _ in groups))
    places = sorted(groups, key=lambda place: (phases.index(place[0]), ORDER.index(place[1])))
    return [
        (
            f"{phase}: {QUANTITIES[kind].title}" if phase else QUANTITIES[kind].title,
            QUANTITIES[kind],
            groups[phase, kind],
        )
        for phase, kind in places
    ]


def _same(one: Series, other: Series) -> bool:
    return one.phase == other.phase and np.array_equal(one[3:], other[3:], equal_nan=True)


def _draw(axes: Any, title: str, quantity: Quantity, series: list[Series]) -> None:
    names = list(dict.fromkeys(one.name for one in series))
    for one in series:
        values = one.values
        look: dict[str, Any] = {"color": COLOURS[names.index(one.name) % len(COLOURS)], "lw": 1.4}
        # Phases of one metric share a colour and one entry of the legend.
        first = next(other for other in series if other.name == one.name) is one
        look["label"] = one.name if first else None
        # Few points get marks; of many the running mean is drawn over the pale curve.
        if len(values) < 20:
            look |= {"marker": "o", "ms": 3}
        if len(values) > SMOOTHED:
            axes.plot(one.steps, values, color=look["color"], lw=0.6, alpha=0.25)
            values = _running_mean(values, len(values) // 40)
        axes.plot(one.steps, values, **look)
    # A logarithmic axis where the values span more than a factor of ten.
    positive = [value for one in series for value in one.values if value > 0]
    if quantity.log and positive and max(positive) > 10 * min(positive):
        axes.set_yscale("log", nonpositive="mask")
    else:
        axes.ticklabel_format(useOffset=False)
    # Labels, grid and legend.
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(title, fontsize=10, loc="left", color="#222222")
    axes.set_xlabel(series[0].unit, fontsize=8.5)
    axes.tick_params(labelsize=8)
    axes.grid(color="#e3e7ec", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of the finite values among `width` neighbours on each side; less near the ends, where it soon stops."""
    place = np.arange(len(values))
    reach = np.minimum(width, np.minimum(place, place[::-1]))
    finite = np.isfinite(values)
    sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in (np.where(finite, values, 0), finite)]
    total, count = (part[place + reach + 1] - part[place - reach] for part in sums)
    return np.where(finite & (reach >= width // 2), total / np.maximum(count, 1), np.nan)
