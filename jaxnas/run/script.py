"""The command line of a script: presets, one-line errors and exit codes."""

from __future__ import annotations

import dataclasses
import difflib
import dis
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, NoReturn, TypeVar

from jaxnas.run.environment import enable_compilation_cache
from jaxnas.run.phases import Saving
from jaxnas.run.runner import Run
from jaxnas.run.signals import Interrupted

__all__ = ["Launch", "exit_code", "parse", "script"]

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Launch(Generic[Config]):
    """What a command line says.

    Attributes:
      config: the preset with the options given.
      preset: its name.
      workdir: where the run lives.
      smoke: whether the configuration was made small.
      checkpoint_seconds: time between checkpoints.
    """

    config: Config
    preset: str
    workdir: Path
    smoke: bool = False
    checkpoint_seconds: float = 60.0


def script(
    main: Callable[[Run, Any], object],
    presets: Mapping[str, Any],
    *,
    system: str,
    smoke: Callable[[Any], Any] | None = None,
    default: str = "digits",
    args: Sequence[str] | None = None,
) -> NoReturn:
    """Runs an experiment from the command line and exits: `python -m experiments.<system> [PRESET] [OPTIONS]`.

    `main(run, config)` ends with `run.finish(result)`; the result is printed. A finished run only prints it. Exit
    codes: 0; 2 for what the user got wrong, in one line; 143 after SIGTERM and 130 after Ctrl-C, saved; 1 with a
    traceback for anything else. The other arguments are those of `parse`.
    """

    def body() -> None:
        launch = parse(presets, default, args, system=system, smoke=smoke)
        enable_compilation_cache()
        saving = Saving(seconds=launch.checkpoint_seconds)
        seed = getattr(launch.config, "seed", 0)
        with Run(launch.workdir, launch.config, seed=seed, saving=saving) as run:
            if run.result is None:
                main(run, launch.config)
            if run.result is not None:
                print(json.dumps(run.result, indent=2))

    own = {main.__module__, getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "")}
    code = exit_code(body, packages=[module.partition(".")[0] for module in own])
    if code in (130, 143):  # a compilation may still run in the background, and Python would wait for it or crash
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def exit_code(body: Callable[[], object], *, packages: Sequence[str] = ()) -> int:
    """Calls `body` and turns what comes out of it into an exit code, see `script`.

    Args:
      body: the work.
      packages: top-level packages, besides `jaxnas` and `__main__`, whose `raise ValueError` speaks to the user. The
        same error out of a library, or out of a subscript, is a bug and keeps its traceback.
    """
    try:
        body()
    except Interrupted as stop:
        print(f"{stop}; the same command goes on from here", file=sys.stderr)
        return int(stop.exit_code)
    except KeyboardInterrupt:
        return 130
    except (ValueError, KeyError, OSError) as error:
        if not _is_deliberate(error, {"jaxnas", "__main__", *packages}):
            traceback.print_exc()
            return 1
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {' '.join(str(text).split())}", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _is_deliberate(error: BaseException, packages: set[str]) -> bool:
    """Whether a `raise` statement of one of the packages made the error."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return True
    raised = last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and last.tb_frame.f_globals.get("__name__", "").partition(".")[0] in packages


def parse(
    presets: Mapping[str, Config],
    default: str = "digits",
    args: Sequence[str] | None = None,
    *,
    system: str = "run",
    smoke: Callable[[Config], Config] | None = None,
) -> Launch[Config]:
    """Reads `[PRESET] [--workdir DIR] [--smoke] [--any.field VALUE ...]`.

    Args:
      presets: named configurations, instances of frozen dataclasses.
      default: the preset when none is named.
      args: the words, by default those of the command line.
      system: name of the script, for the help text and the default directory `runs/<system>-<preset>-<seed>`.
      smoke: makes a configuration small; with it there is an option `--smoke`. Options still override its choices.

    Raises:
      ValueError: an unknown preset.
      SystemExit: after `--help` (0), or an option that tyro refuses (2), with a suggestion for a typo.
    """
    import tyro

    words = list(sys.argv[1:] if args is None else args)
    name = words.pop(0) if words and not words[0].startswith("-") else default
    if name not in presets:
        close = difflib.get_close_matches(name, presets, 1)
        hint = f" did you mean {close[0]}?" if close else ""
        raise ValueError(f"unknown preset {name!r};{hint} the presets are {', '.join(presets)}")
    config = presets[name]
    if smoke is not None and "--smoke" in words:
        config = smoke(config)
    text = f"Preset {name} of {', '.join(presets)}; name another one first to see and use its values."
    options: Any = tyro.cli(
        _options(config, smoke is not None),
        prog=f"{system} [PRESET]",
        description=text,
        args=words,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff),
    )
    small = getattr(options, "smoke", False)
    workdir = options.workdir or Path("runs") / _folder(system, name, options.config, small)
    return Launch(options.config, name, workdir, small, options.checkpoint_seconds)


def _folder(system: str, preset: str, config: Any, smoke: bool) -> str:
    return f"{system}-{preset}-{getattr(config, 'seed', 0)}{'-smoke' if smoke else ''}"


def _options(config: Any, with_smoke: bool) -> type:
    """A dataclass for tyro: the configuration's own fields without a prefix, and the options of every script."""
    import tyro

    def field(name: str, kind: Any, default: Any, text: str) -> tuple[str, Any, Any]:
        return name, Annotated[kind, tyro.conf.arg(help=text)], dataclasses.field(default=default)

    own: Any = Annotated[type(config), tyro.conf.arg(name="")]
    fields: list[tuple[str, Any, Any]] = [("config", own, dataclasses.field(default_factory=lambda: config))]
    fields.append(field("workdir", Path | None, None, "Work directory, runs/<system>-<preset>-<seed> by default."))
    fields.append(field("checkpoint_seconds", float, 60.0, "Time between two checkpoints."))
    if with_smoke:
        fields.append(field("smoke", bool, False, "A handful of steps on synthetic data, to see every file appear."))
    return dataclasses.make_dataclass("Options", fields)
