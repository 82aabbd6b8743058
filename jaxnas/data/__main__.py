"""`python -m jaxnas.data prepare fashion_mnist --manual-dir DIR`: prepares a set from its original files."""

import sys
from collections.abc import Sequence

from jaxnas.command import Parser, answer
from jaxnas.data.originals import prepare


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or 2 after one line on standard error."""
    parser = Parser(prog="python -m jaxnas.data", description="Prepare data sets for jaxnas.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare", help="prepare a TFDS set from original files, without a network")
    command.add_argument("name", help="builder as TFDS spells it, for example fashion_mnist or emnist/balanced")
    command.add_argument("--manual-dir", required=True, help="folder of the files, under their original names")
    command.add_argument("--data-dir", help="folder of the prepared sets (default: that of TFDS)")
    options = parser.parse_args(arguments)
    name = options.name.removeprefix("tfds:").replace("-", "_")

    def work() -> None:
        splits = prepare(name, manual_dir=options.manual_dir, data_dir=options.data_dir)
        print(f"{name}: " + ", ".join(f"{num} {split}" for split, num in splits.items()))

    return answer(work)


if __name__ == "__main__":
    sys.exit(main())
