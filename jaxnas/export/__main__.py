"""`python -m jaxnas.export WORKDIR --out DIR`: the network that a run found, as files that need no jaxnas."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxnas.command import Parser, answer
from jaxnas.export.workdir import export_workdir


def main(arguments: Sequence[str] | None = None) -> int:
    """Exports a work directory; returns 0, or 2 after one line on standard error."""
    parser = Parser(prog="python -m jaxnas.export", description="Export the network that a run found.")
    parser.add_argument("workdir", metavar="WORKDIR", help="work directory of a finished run")
    parser.add_argument("--out", metavar="DIR", help="folder to write (default: WORKDIR/export)")
    options = parser.parse_args(arguments)
    out = Path(options.out or Path(options.workdir) / "export")

    def work() -> None:
        about = export_workdir(options.workdir, out)
        for name in (*about["sha256"], "network.json"):
            print(out / name)

    return answer(work)


if __name__ == "__main__":
    sys.exit(main())
