"""`python -m jaxnas.costs.latency --space=proxyless --out=FILE`: the latency table of the device at hand."""

import json
import sys
from collections.abc import Sequence

from jaxnas.base import Part
from jaxnas.command import Parser, answer, check_out
from jaxnas.costs.latency.measure import ROUNDS, measure_space
from jaxnas.costs.latency.table import write_latency
from jaxnas.spaces import registry


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes; returns 0, or 2 after one line on standard error."""
    parser = Parser(prog="python -m jaxnas.costs.latency", description=__doc__)
    parser.add_argument("--space", default="proxyless", help="name of the space")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the space")
    parser.add_argument("--image", nargs=3, type=int, default=(224, 224, 3), metavar=("H", "W", "C"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each block")
    parser.add_argument("--repeats", type=int, default=30, help="timed calls in a turn")
    parser.add_argument("--out", required=True, metavar="FILE", help="the JSON to write")
    options = parser.parse_args(arguments)

    def work() -> None:
        check_out(options.out)
        space = registry.build(options.space, **registry.settings_from_text(options.space, options.set))
        table = measure_space(
            space,
            tuple(options.image),
            batch_size=options.batch,
            rounds=options.rounds,
            repeats=options.repeats,
            on_compiled=_show,
        )
        write_latency(options.out, table)
        print(json.dumps({"out": options.out, "entries": len(table.entries), **table.about}))

    return answer(work)


def _show(number: int, count: int, part: Part) -> None:
    print(f"compiled {number}/{count} {part.key}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
