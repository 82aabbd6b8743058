"""The command line of a script: presets, one-line errors and exit codes."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, NoReturn, TypeVar

import jax
from annotated_types import Ge, Le, MinLen

from jaxnas.errors import UserError
from jaxnas.files import read_json
from jaxnas.run._environment import enable_compilation_cache, is_installed
from jaxnas.run.phases import Saving
from jaxnas.run.ranges import check_ranges, options_of, ranged
from jaxnas.run.runner import Run
from jaxnas.run.signals import Interrupted
from jaxnas.standard_error import say

__all__ = ["Launch", "exit_code", "parse", "script"]

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Launch(Generic[Config]):
    """What a command line says.

    Attributes:
      config: the configuration of the preset, with the options of the command line in it.
      preset: the name of the preset.
      workdir: the directory in which the run lives.
      smoke: whether the configuration was made small.
      checkpoint_seconds: seconds between two checkpoints.
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
    prepare: Callable[[Any], Any] | None = None,
    smoke: Callable[[Any], Any] | None = None,
    default: str = "digits",
    args: Sequence[str] | None = None,
) -> NoReturn:
    """Runs an experiment from the command line and exits: `python -m experiments.<system> [PRESET] [OPTIONS]`.

    `main(run, prepared)` ends with `run.finish(result)`; the result is printed. A finished run only prints it. Exit
    codes: 0; 2 for what the user got wrong, in one line; 143 after SIGTERM and 130 after Ctrl-C, saved; 1 with a
    traceback for anything else.

    Args:
      main: the experiment, `(run, prepared) -> None`.
      presets: named configurations, instances of frozen dataclasses.
      system: name of the script, which begins the name of the default work directory.
      prepare: `(config) -> prepared`. It loads and builds all that `main` needs and raises `UserError` for settings
        that cannot work, before the work directory is touched: a corrected command may then use the same one. Without
        it `main` gets the configuration.
      smoke: makes a configuration small, `(config) -> config`; with it there is an option `--smoke`.
      default: name of the preset for a command line that names none.
      args: words to read in place of those of the command line.
    """

    def body() -> None:
        launch = parse(presets, default, args, system=system, smoke=smoke)
        enable_compilation_cache()
        ready = prepare or (lambda config: config)
        # A finished run prints its result without loading anything, unless a file of it turns out to be damaged.
        finished = read_json(launch.workdir / "result.json") is not None
        prepared = None if finished else ready(launch.config)
        seed = getattr(launch.config, "seed", 0)
        with Run(launch.workdir, launch.config, seed=seed, saving=Saving(seconds=launch.checkpoint_seconds)) as run:
            if run.result is None:
                _tell_what_is_left_out()
                main(run, ready(launch.config) if prepared is None else prepared)
            if run.result is not None:
                print(json.dumps(run.result, indent=2))

    code = exit_code(body)
    if code in (130, 143):  # a compilation may still run in the background, and Python would wait for it or crash
        with contextlib.suppress(AttributeError, OSError, ValueError):  # there is none, or it is closed
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _tell_what_is_left_out() -> None:
    """One line on stderr about optional packages that are missing, and one where JAX is kept from compiling."""
    packages = {"matplotlib": ("pictures", "plot"), "tensorboardX": ("TensorBoard curves", "log")}
    missing = {name: what for name, what in packages.items() if not is_installed(name)}
    if missing:
        left_out = " and no ".join(what for what, _ in missing.values())
        extras = ",".join(extra for _, extra in missing.values())
        say(f"no {left_out}: {' and '.join(missing)} not installed (pip install 'jaxnas[{extras}]')")
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        say("JAX_DISABLE_JIT is set: nothing is compiled, and every step takes far longer")


def exit_code(body: Callable[[], object]) -> int:
    """Calls `body` and turns what comes out of it into an exit code, as `script` describes.

    Only a `jaxnas.errors.UserError` is answered in one line. Every other exception is a bug and keeps its traceback.

    Example:
      >>> exit_code(lambda: None)
      0
    """
    try:
        body()
    except Interrupted as stop:
        say(f"{stop}; the same command goes on from here")
        return int(stop.exit_code)
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        say(f"error: {' '.join(str(error).split())}")
        return 2
    except Exception:
        traceback.print_exc()
        return 1
    return 0


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
      default: name of the preset for a command line that names none.
      args: the words to read, by default those of the command line.
      system: name of the script, for the help text and the default directory `runs/<system>-<preset>-<seed>`.
      smoke: makes a configuration small; with it there is an option `--smoke`. Options still override its choices.

    Raises:
      UserError: an unknown preset or option, with a suggestion for a typo; a value that cannot be read, or that lies
        outside of its field's range.
      SystemExit: the words ask for `--help`, which has been printed.

    Example:
      >>> from jaxnas.run import Saving
      >>> parse({"often": Saving(seconds=5.0)}, default="often", args=["--keep", "3"]).config
      Saving(seconds=5.0, steps=None, keep=3)
    """
    # The preset comes first, unless the command line begins with an option.
    words = list(sys.argv[1:] if args is None else args)
    name = words.pop(0) if words and not words[0].startswith("-") else default
    if name not in presets:
        close = difflib.get_close_matches(name, presets, 1)
        hint = f" did you mean {close[0]}?" if close else ""
        raise UserError(f"unknown preset {name!r};{hint} the presets are {', '.join(presets)}")
    # Options are read over the values of the preset, those of a smoke run over the small ones.
    config = presets[name]
    if smoke is not None and "--smoke" in words:
        config = smoke(config)
    text = f"Preset {name} of {', '.join(presets)}; name another one first to see and use its values."
    options = _read(_options(config, smoke is not None), words, f"{system} [PRESET]", text, presets)
    check_ranges(options)
    small = getattr(options, "smoke", False)
    folder = f"{system}-{name}-{getattr(options.config, 'seed', 0)}{'-smoke' if small else ''}"
    workdir = Path("runs") / folder if options.workdir is None else _usable(options.workdir)
    return Launch(options.config, name, workdir, small, options.checkpoint_seconds)


def _read(kind: type, words: list[str], prog: str, description: str, presets: Iterable[str]) -> Any:
    """Hands the words to tyro; its refusal, a box of several lines, becomes one."""
    import tyro

    refusal, config = io.StringIO(), (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
    try:
        with contextlib.redirect_stderr(refusal):
            return tyro.cli(kind, prog=prog, description=description, args=words, config=config)
    except SystemExit as stop:
        if not stop.code:  # after `--help`
            raise
    # The first paragraph in the box says what is wrong; options like the unknown one follow, each with its help.
    lines = [line.strip("│ ") for line in refusal.getvalue().splitlines() if not line.startswith(("╭", "╰"))]
    ends = [number for number, line in enumerate(lines) if not line.strip("─")]
    reason = " ".join(lines[: ends[0] if ends else None])
    # A misspelt option is answered with the one that it resembles most.
    known = [option.name for option in options_of(kind())]
    given = [re.sub("_", "-", word.partition("=")[0]) for word in words if word.startswith("--")]
    close = [match for word in given if word not in known for match in difflib.get_close_matches(word, known, 1)]
    hint = f"; did you mean {' and '.join(close)}?" if close else ""
    # So is the name of a preset that stands behind an option.
    late = [name for name in presets if re.search(rf"[:,] {re.escape(name)}(?![\w-])", reason)]
    hint += f"; a preset is the first word: {prog.partition(' ')[0]} {late[0]} ..." if late else ""
    raise UserError(f"{textwrap.shorten(reason, 300)}{hint}")


def _usable(workdir: str) -> Path:
    """The path of a work directory; a name that the system does not take is refused."""
    try:
        path = Path(workdir).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"--workdir {textwrap.shorten(workdir, 80)} cannot be used: {reason}") from None
    return path


def _options(config: Any, with_smoke: bool) -> type:
    """A dataclass for tyro: the fields of the configuration without a prefix, then the options of every script."""
    import tyro

    def field(name: str, kind: Any, default: Any, text: str) -> tuple[str, Any, Any]:
        return name, Annotated[kind, tyro.conf.arg(help=text)], dataclasses.field(default=default)

    # The configuration comes flat and first, then the options of every script.
    without_prefix: Any = Annotated[type(config), tyro.conf.arg(name="")]
    flat = dataclasses.field(default_factory=lambda: config, metadata={"flat": True})
    folder, seconds = ranged(str, MinLen(1)) | None, ranged(float, Ge(0), Le(1e9))
    fields: list[tuple[str, Any, Any]] = [("config", without_prefix, flat)]
    fields.append(field("workdir", folder, None, "Work directory, runs/<system>-<preset>-<seed> by default."))
    fields.append(field("checkpoint_seconds", seconds, 60.0, "Time between two checkpoints."))
    if with_smoke:
        fields.append(field("smoke", bool, False, "A handful of steps on synthetic data, to see every file appear."))
    return dataclasses.make_dataclass("Options", fields)
