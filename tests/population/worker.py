"""One of several processes that train a population together: `python -m tests.population.worker --help`."""

import argparse
import os
import signal
from pathlib import Path

import jax
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", help="of the first process, host:port")
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--chunk", type=int, required=True)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dies-after", type=int, default=0, help="members after which this process is gone")
    args = parser.parse_args()
    if args.processes > 1:
        jax.distributed.initialize(args.address, args.processes, args.process)
    from tests.population.families import ARCHS, RATES, trained

    def on_chunk(done, seconds):
        del seconds
        if done == args.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    found = trained(
        {"chain": np.tile(ARCHS["chain"], (3, 1))},
        rates=np.tile(RATES, 3),
        seeds=np.repeat(np.arange(3), 7),
        strategy="shard",
        chunk=args.chunk,
        directory=args.directory,
        on_chunk=on_chunk,
    )
    params = {f"params/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(found.params))}
    score = {f"score/{name}": values for name, values in found.score.items()}
    np.savez(args.out, good=found.good, loss=found.loss, devices=jax.device_count(), **score, **params)


if __name__ == "__main__":
    main()
