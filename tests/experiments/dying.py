"""A script that is killed for certain: `python -m tests.experiments.dying SYSTEM ROWS MOMENT SECONDS [OPTIONS]`.

Once `metrics.jsonl` has ROWS lines the process gets SIGKILL, after SECONDS that are counted from there (`running`) or
from the start of the next checkpoint (`saving`). In the moment `generation` it gets SIGKILL when a part of the next
population has been saved, which wants the option `--checkpoint-seconds 0`. It never comes to its end before.
"""

import os
import runpy
import signal
import sys
import threading
import time

from jaxnas.checkpoint import Checkpoints
from jaxnas.run import Run
from jaxnas.run.records import JsonLines


def main() -> None:
    system, limit, moment, seconds, *options = sys.argv[1:]
    flush, save, written, doomed = JsonLines.flush, Checkpoints.save, [0], threading.Event()

    def die_if(now: str) -> None:
        if now == moment and written[0] >= int(limit) and not doomed.is_set():
            doomed.set()
            threading.Timer(float(seconds), os.kill, (os.getpid(), signal.SIGKILL)).start()

    def counting_flush(self, **settings):
        flush(self, **settings)
        written[0] = self._path.read_bytes().count(b"\n")
        die_if("running")

    def last_save(self, *arguments, **settings):
        die_if("saving")
        save(self, *arguments, **settings)
        if moment == "generation" and written[0] >= int(limit) and "children" in self._directory.parts:
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == "saving" and doomed.is_set():
            time.sleep(600)

    JsonLines.flush, Checkpoints.save = counting_flush, last_save
    Run.finish = lambda self, result: time.sleep(600)
    sys.argv = [f"experiments.{system}", *options]
    runpy.run_module(f"experiments.{system}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
