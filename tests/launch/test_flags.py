"""Command lines: what a person gets wrong is one line, with the nearest known key."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags as absl_flags
from ml_collections import config_flags

from blt_jax.config import ConfigError
from blt_jax.study import overrides

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"

# ml_collections loads config files by a deprecated call.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

EXPERIMENT = """
from blt_jax.config import ConfigError
from ml_collections import config_dict

def get_config(arg=""):
    if arg == "bad":
        raise ConfigError("arg = 'bad': must be small or large")
    return config_dict.ConfigDict(
        dict(name="n", train=dict(steps=10), data=dict(row_bytes=4096), rate=0.1, on=False, sizes=(3, 4),
             families=dict(first=dict(encoder=dict(layers=2))))
    )
"""

COMMAND = '''"""Does a thing.

Example: python -m thing --config=experiment.py
"""
import errno, os
from absl import flags as absl_flags
from blt_jax.config import ConfigError
from blt_jax.runs.lease import Lease
from launch import flags

_CONFIG = flags.define_config()
_RAISE = absl_flags.DEFINE_string("raise", "", "what to raise")
_WORKDIR = absl_flags.DEFINE_string("workdir", "", "a folder")

def main(argv):
    match _RAISE.value:
        case "config":
            raise ConfigError("heads = 3: must divide width 64")
        case "disk":
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x/y")
            except OSError as error:
                raise ValueError("a library's own words") from error
        case "lease":
            with Lease("folder", "study"), Lease("folder", "study"):
                pass
        case "bug":
            raise KeyError("our own mistake")
        case "saved":
            return 42
        case "pipe":
            for _ in range(100_000):
                print("a line that nobody reads")
    print(_CONFIG.value.train.steps, _CONFIG.value.rate, _CONFIG.value.name, _CONFIG.value.sizes)

if __name__ == "__main__":
    flags.run(main)
'''


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # names of another test's file
    (tmp_path / "experiment.py").write_text(EXPERIMENT)
    values = absl_flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    return lambda *argv: overrides.check_overrides(
        ["program", *argv], values["config"].parser.parse, EXPERIMENTS
    )[1:]


@pytest.mark.parametrize(
    "given, passed", [("1e3", 1000), ("0x10", 16), ("007", 7), ("1e25", 10**25), ("-2.0", -2)]
)
def test_whole_numbers_in_any_form(check, given, passed):
    assert (
        check("--config=experiment.py", f"--config.train.steps={given}")[1]
        == f"--config.train.steps={passed}"
    )


def test_other_overrides_are_left_alone(check):
    argv = [
        "--config=experiment.py",
        "--config.name=1e3",
        "--config.rate=1e3",
        "--noconfig.on",
        "--config.sizes[0]=7",
    ]
    assert check(*argv) == argv


@pytest.mark.parametrize(
    "argv, message",
    [
        (
            ["--config.data.row_byte=5"],
            "unknown config key 'data.row_byte': did you mean 'data.row_bytes'?",
        ),
        (
            ["--config.row_bytes=5"],
            "unknown config key 'row_bytes': did you mean 'data.row_bytes'?",
        ),
        (
            ["--config.layer=5"],
            "unknown config key 'layer': did you mean 'families.first.encoder.layers'?",
        ),
        (["--noconfig.onn"], "unknown config key 'onn': did you mean 'on'?"),
        (["--config.qqqqqq=5"], "unknown config key 'qqqqqq'"),
        (["--config.rate.x=5"], "config key 'rate' is a value: it has no part 'x'"),
        (["--config.train.steps=1.5"], "config key 'train.steps' = '1.5': must be a whole number"),
        (["--config.train.steps=inf"], "config key 'train.steps' = 'inf': must be a whole number"),
        (
            ["--config.train.steps=many"],
            "config key 'train.steps' = 'many': must be a whole number",
        ),
    ],
)
def test_wrong_overrides(check, argv, message):
    with pytest.raises(ConfigError) as error:
        check("--config=experiment.py", *argv)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "--config=FILE is missing; --help shows an example"),
        (
            ["--config=experimnt.py"],
            "config file 'experimnt.py' not found: did you mean 'experiment.py'?",
        ),
        (["--config", "no/x.py"], "config file 'no/x.py' not found: there is no folder 'no'"),
        (["--config=experiment.py:bad"], "arg = 'bad': must be small or large"),
        (["--config=empty.py"], "--config=empty.py: the file defines no get_config()"),
        (["--config=plain.py"], "--config=plain.py: get_config() must return a ConfigDict"),
        (
            ["--config=plain.py:small"],
            "--config=plain.py:small: get_config() takes 0 positional arguments but 1 was given; "
            "the argument is what follows the colon",
        ),
    ],
)
def test_wrong_config_file(check, tmp_path, argv, message):
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "plain.py").write_text("def get_config():\n    return {}\n")
    with pytest.raises(ConfigError) as error:
        check(*argv)
    assert str(error.value) == message


def test_bare_names_mean_packaged_experiments(check):
    file = f"{EXPERIMENTS / 'quickstart'}.py"
    assert check("--config=quickstart", "--config.train.rows=1e1") == [
        f"--config={file}",
        "--config.train.rows=10",
    ]
    assert check("--config", "quickstart") == ["--config", file]
    assert check("--config=ablations:hash") == [f"--config={EXPERIMENTS / 'ablations'}.py:hash"]
    with pytest.raises(ConfigError) as error:
        check("--config=quickstrt")
    assert str(error.value) == (
        "--config=quickstrt: no file, and no experiment of that name: did you mean 'quickstart' or "
        "'quickstart_rates'?"
    )
    with pytest.raises(ConfigError, match="of that name: ablations, .*, text$"):
        check("--config=published")  # a part of experiments, none itself


def test_a_file_of_the_bare_name_comes_first(check, tmp_path):
    (tmp_path / "quickstart").write_text(EXPERIMENT)
    assert check("--config=quickstart") == ["--config=quickstart"]


def test_a_bug_in_the_config_file_keeps_its_exception(check, tmp_path):
    (tmp_path / "buggy.py").write_text("def get_config():\n    return {}['x']\n")
    with pytest.raises(KeyError):
        check("--config=buggy.py")


@pytest.fixture
def command(tmp_path):
    (tmp_path / "experiment.py").write_text(EXPERIMENT)
    (tmp_path / "thing.py").write_text(COMMAND)

    def call(*argv, through=""):
        call = [sys.executable, "-m", "thing", *argv]
        if through:
            call = ["bash", "-c", f"{shlex.join(call)} | {through}"]
        env = os.environ | {"PYTHONPATH": str(EXPERIMENTS.parent)}  # this checkout's
        return subprocess.run(
            call, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
        )

    return call


def test_a_right_command_line(command):
    argv = [
        "--config.train.steps=1e3",
        "--config.rate=1",
        "--config.name=1e3",
        "--config.sizes=(5,)",
    ]
    done = command("--config=experiment.py", *argv)
    assert (done.returncode, done.stdout) == (0, "1000 1.0 1e3 (5,)\n")
    assert command("--config=experiment.py", "--raise=saved").returncode == 42


@pytest.mark.parametrize(
    "argv, start",
    [
        (["--config.data.row_byte=5"], "error: unknown config key 'data.row_byte'"),
        (["--config.rate=abc"], "error: flag --config.rate=abc: could not convert string to float"),
        (["--rais=x"], "error: unknown flag --rais: did you mean '--raise'?"),
        (["extra"], "error: unexpected argument 'extra'"),
        (["--raise=config"], "error: heads = 3: must divide width 64"),
        (["--raise=disk"], "error: the disk is full (x/y); free some space"),
        (["--raise=lease"], "error: the study folder is in use by process"),
        (
            ["--workdir=s3://bucket/study"],
            "error: --workdir=s3://bucket/study: studies, runs and stores live",
        ),
    ],
)
def test_errors_are_one_line(command, argv, start):
    failed = command("--config=experiment.py", *argv)
    assert failed.returncode == 2
    assert failed.stderr.startswith(start) and failed.stderr.count("\n") == 1, failed.stderr


def test_a_bug_keeps_its_traceback(command):
    failed = command("--config=experiment.py", "--raise=bug")
    assert failed.returncode == 1 and "Traceback" in failed.stderr


def test_a_reader_who_leaves_is_no_error(command):
    seen = command("--config=experiment.py", "--raise=pipe", through="head -n 1")
    assert seen.stdout == "a line that nobody reads\n" and seen.stderr == "", seen.stderr


def test_help_is_the_docstring_and_the_own_flags(command):
    shown = command("--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("Does a thing.") and "Example: python -m thing" in shown.stdout
    assert "--raise: what to raise" in shown.stdout and "--config.KEY=VALUE" in shown.stdout
    assert "pdb" not in shown.stdout and len(shown.stdout.splitlines()) < 15
