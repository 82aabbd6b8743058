"""Every setting of every script: a wrong value is one line and exit code 2, before anything is written."""

import dataclasses
import importlib
import math
import types
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest

from experiments import common, snas
from jaxnas.run import check_ranges, exit_code, options_of, parse, read_json, script

SYSTEMS = (
    "child_gap",
    "darts",
    "exhaustive",
    "fronts",
    "latency_sweep",
    "nas_rl",
    "policy_gradient",
    "proxyless",
    "random_search",
    "retrain",
    "snas",
    "tabular",
)
CASES = [(system, "digits") for system in SYSTEMS]
CASES += [("proxyless", "cifar10-tree"), ("exhaustive_cells", "shakespeare")]
CASES += [("nas_rl_cell", "shakespeare"), ("transfer_cell", "words")]
VALUES = ("0", "-1", "nan", "inf", "1e30", "1" + 30 * "0", "")


def script_of(system):
    module = importlib.import_module(f"experiments.{system}")
    return module, getattr(module, "smoke", common.smoke)


def answer(body, capsys):
    """The exit code of a script's start and what it says on stderr."""
    code = exit_code(body)
    return code, capsys.readouterr().err


def is_one_line(code, err):
    return code == 2 and err.count("\n") == 1 and err.startswith("error: ")


def with_value(config, name, value):
    """The configuration with another value of the option `--part.field`."""
    first, _, rest = name.removeprefix("--").replace("-", "_").partition(".")
    return dataclasses.replace(config, **{first: with_value(getattr(config, first), rest, value) if rest else value})


def converted(kind, word):
    """A word of the command line as a value of a field's type; raises `ValueError` as the parser does."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return converted(arguments[0], word)
    if origin is tuple:
        return (converted(arguments[0], word),)
    if origin in (Union, types.UnionType):
        return converted(arguments[0], word)
    if origin is Literal or kind is bool:
        raise ValueError(word)
    return kind(word)


@pytest.mark.parametrize(("system", "preset"), CASES)
def test_every_field_takes_what_makes_sense_and_refuses_the_rest_in_one_line(system, preset, capsys):
    module, smoke = script_of(system)
    usual = smoke(module.PRESETS[preset])
    tried = refused = 0
    for option in options_of(usual):
        for word in VALUES:
            try:
                config = with_value(usual, option.name, converted(option.kind, word))
            except ValueError:
                continue  # the parser's, see below
            tried += 1
            if config == usual:
                continue

            def start(config=config):
                check_ranges(config)
                module.prepare(config)

            code, err = answer(start, capsys)
            refused += code == 2
            assert code == 0 or is_one_line(code, err), (option.name, word, err)
            for entry in options_of(config) if code == 0 else ():
                values = entry.value if isinstance(entry.value, tuple) else (entry.value,)
                assert all(math.isfinite(value) for value in values if isinstance(value, int | float)), (entry, word)
    assert refused > tried / 2


@pytest.mark.parametrize("system", ["proxyless", "tabular"])
def test_the_command_line_refuses_what_a_field_cannot_be(system, capsys):
    module, smoke = script_of(system)
    for option in options_of(module.PRESETS["digits"]):
        values = option.value if isinstance(option.value, tuple) else (option.value,)
        if not any(isinstance(value, int | float) for value in values):
            continue
        code, err = answer(lambda name=option.name: parse(module.PRESETS, args=[f"{name}=nan"], smoke=smoke), capsys)
        assert is_one_line(code, err), (option.name, err)
        assert option.name in err or isinstance(option.value, bool)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--search.learning-rate nan", "--search.learning-rate is nan, expected a number in (0, 1_000]"),
        ("--search.epochs 0", "--search.epochs is 0, expected a whole number in [1, 1_000_000]"),
        ("--search.epochs 1.5", "'1.5'"),
        ("--seed -1", "--seed is -1, expected a whole number in [0, 4_294_967_296)"),
        ("--seed 4294967296", "--seed is 4294967296"),
        ("--data.weights 1.5", "--data.weights is 1.5, expected a fraction up to 1, or a whole count"),
        ("--data.pad-to none", "--data.pad-to"),
        ("--network.operations", "--network.operations is (), expected at least one name, none of them twice"),
        ("--network.operations none none", "expected at least one name, none of them twice"),
        ("--search.resource square", "'square'"),
        ("--checkpoint-seconds nan", "--checkpoint-seconds is nan, expected a number in [0, 1e+09]"),
        ("--checkpoint-seconds inf", "--checkpoint-seconds is inf"),
        ("--workdir=", "--workdir is '', expected text that is not empty"),
        (f"--workdir {300 * 'x'}", "cannot be used: File name too long"),
        ("--workdir ~nobody-of-that-name/x", "cannot be used: Could not determine home directory"),
        ("--search.epoch 3", "did you mean --search.epochs?"),
        ("--sed 3 --searc.epochs=4", "did you mean --seed and --search.epochs?"),
        ("--data.flip 3", "3"),
        ("digit", "did you mean digits?"),
    ],
)
def test_refusals_of_the_command_line(words, said, capsys):
    module, smoke = script_of("snas")
    code, err = answer(lambda: parse(module.PRESETS, args=words.split(), smoke=smoke), capsys)
    assert is_one_line(code, err), err
    assert said in err


def test_help_shows_the_ranges(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        parse(script_of("snas")[0].PRESETS, args=["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "--search.learning-rate FLOAT in (0, 1_000]" in text
    assert "--seed INT in [0, 4_294_967_296)" in text


@pytest.mark.parametrize(
    ("system", "words", "said"),
    [
        ("snas", "--data.name digit", "digit"),
        ("snas", "--data.data-dir nowhere", "data.data_dir is nowhere, which is no folder"),
        ("snas", "--network.operations none sep_conv_9x9", "sep_conv_9x9"),
        ("snas", "--search.first-temperature 0.01", "temperature"),
        ("snas", "--data.name synthetic:n=96,size=9,classes=3,channels=1", "even height and width"),
        ("snas", "--search.batch-size 100000", "search.batch_size is 100000, expected 1 to the 48"),
        ("snas", "--retrain.batch-size 97", "retrain.batch_size is 97, expected 1 to the 96"),
        ("snas", "--data.weights 0.5 --data.policy 20", "data.weights is 0.5"),
        ("snas", "--data.crop 9", "data.crop is 9, expected at most the 8 pixels"),
        ("snas", "--network.channels 10000 --network.nodes 4 --network.cells 20", "GiB"),
        ("snas", "--search.epochs 1000000 --search.batch-size 1 --data.name synthetic:n=9000,size=8", "steps"),
        ("darts", "--network.dtype float12", "float12"),
        ("random_search", "--search.candidates 1000 --network.channels 800", "GiB"),
        ("proxyless", "--search.warmup-epochs 2", "expected less than the 2 of search.epochs"),
        ("proxyless", "--latency.table nowhere.json", "nowhere.json"),
        ("proxyless", "--network.blocks 1 2 3", "3"),
        ("child_gap", "--methods snas sans", "sans"),
        ("child_gap", "--batch-size 49", "batch_size is 49, expected 1 to the 48"),
        ("child_gap", "--seeds 1 1", "none of them twice"),
        ("latency_sweep", "--weights 0.1 0.1", "none of them twice"),
        ("exhaustive", "--judge-epochs 3", "judge_epochs has 3, expected at most the 2 of epochs"),
        ("exhaustive", "--chunk 3", "expected a multiple of the 2 devices"),
        ("tabular", "--methods random-search", "random-search"),
        ("tabular", "--budget 0.01", "budget must cover one evaluation"),
        ("tabular", "--budget 1e7 --seeds 500", "expected at most 100000000 in all"),
        ("tabular", "--report test_17", "test_17"),
        ("policy_gradient", "--children 401", "children is 401, expected a multiple of batch_size, 8"),
        ("policy_gradient", "--top 1 26 --children 80", "top has 26, expected at most 20"),
        ("policy_gradient", "--staleness 9 --seeds 500", "staleness makes 220450 present and earlier parameters"),
        ("policy_gradient", "--objective valid_16", "expected an accuracy with a minus for 'accuracy'"),
        ("tabular", "--population-size 1000000 --seeds 500", "population_size makes 1000000"),
        ("fronts", "--table digit", "did you mean digits"),
        ("fronts", "--evaluations 100000 --population-size 10000", "population_size makes 100000000"),
        ("fronts", "--evaluations 3", "expected at least the 20 of population_size"),
        ("fronts", "--costs mac", "mac"),
        ("nas_rl", "--search.children 9", "search.children is 9, expected a multiple of batch, 4"),
        ("nas_rl", "--layers.last-layers 1", "expected at least the 2 of first_layers"),
        ("nas_rl", "--search.route canvas --search.replicas 2", "which needs the route farm"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_the_start(system, words, said, capsys):
    module, smoke = script_of(system)

    def start():
        module.prepare(parse(module.PRESETS, "digits", [*"--smoke".split(), *words.split()], smoke=smoke).config)

    code, err = answer(start, capsys)
    assert is_one_line(code, err), err
    assert said in err


def test_a_corrected_command_may_use_the_directory(tmp_path, capsys):
    """Nothing is written before everything has been checked."""
    reached = []

    def start(*words):
        with pytest.raises(SystemExit) as ended:
            script(
                lambda run, search: reached.append(run.finish({"lr": search.setting.config.retrain.learning_rate})),
                snas.PRESETS,
                system="snas",
                prepare=snas.prepare,
                smoke=common.smoke,
                args=["--smoke", "--workdir", str(tmp_path / "run"), *words],
            )
        return ended.value.code

    for wrong in ("--retrain.epochs=0", "--retrain.batch-size=97", "--retrain.learning-rate=nan"):
        assert start(wrong) == 2
        assert not (tmp_path / "run").exists()
    assert start("--retrain.learning-rate=0.5") == 0
    assert read_json(tmp_path / "run" / "result.json")["lr"] == 0.5
    assert start("--retrain.learning-rate=0.5") == 0
    assert len(reached) == 1
    assert start("--retrain.learning-rate=0.25") == 2
    assert "retrain.learning_rate is 0.5 there and 0.25 here" in capsys.readouterr().err
