"""Flags of every command: one clear line for what a person got wrong, a traceback for what we did.

`_CONFIG = flags.define_config()` beside a command's other flags, `flags.run(main)` at its end.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags
from ml_collections import config_flags

import experiments
from blt_jax import storage, storage_errors
from blt_jax.config import ConfigError
from blt_jax.runs.lease import LeaseHeld
from blt_jax.study.overrides import check_overrides, config_path, suggestion

flags.disclaim_key_flags()  # what is defined here belongs to the command that asked for it

USAGE_EXIT_CODE = 2
BROKEN_PIPE_EXIT_CODE = 141  # as a shell says of SIGPIPE
FOLDERS = {"workdir", "output", "compile_cache"}
_NO_CONFIG: set[str] = set()  # boolean flags with which the command needs no --config
EXPERIMENTS = Path(experiments.__path__[0])  # what `--config=NAME` means


def define_config(unless: Sequence[str] = ()) -> flags.FlagHolder[Any]:
    """Defines the required `--config=FILE[:ARG]` and its overrides `--config.KEY=VALUE`. With one
    of the flags `unless` no config is needed.
    """
    holder = config_flags.DEFINE_config_file(
        "config", help_string="file of the experiment, FILE.py[:ARG], or NAME[:ARG] of one of ours"
    )
    if not unless:
        flags.mark_flag_as_required("config")
    _NO_CONFIG.update(unless)
    return holder


def run(main: Callable[[list[str]], int | None]) -> None:
    """Parses the flags, calls `main(argv)` and exits with what it returns.

    A mistake in the command line, a `ConfigError`, a `LeaseHeld`, a full or read-only disk is one
    line `error: ...` on stderr and exit code 2; a KeyboardInterrupt is exit code 130. Any other
    exception keeps its traceback.
    """

    def guarded(argv):
        try:
            return main(argv)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # whoever read what we print has seen enough, as in `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it yet
            return BROKEN_PIPE_EXIT_CODE
        except Exception as error:
            line = explain(error)
            if line is None:
                raise
            _fail(line)

    def parse(argv):
        try:
            return _parse(argv)
        except (ConfigError, flags.Error) as error:
            _fail(error)

    # of each accelerator that is not here
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    app.run(guarded, flags_parser=parse)


def explain(error: BaseException) -> str | None:
    """The line for an exception that is a person's to mend; None for one that is ours."""
    if isinstance(error, ConfigError | LeaseHeld):
        return str(error)
    cause = storage_errors.of_bucket(error)
    if cause:
        return f"{cause}; mend it, then run the same command again"
    cause_and_mend = storage_errors.of_disk(error)
    return "; ".join(cause_and_mend) if cause_and_mend else None


def _fail(message: object) -> NoReturn:
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(USAGE_EXIT_CODE)


def _parse(argv: list[str]) -> list[str]:
    """The arguments left after the flags, i.e. [program]. Raises ConfigError, flags.Error."""
    if {"--help", "-help", "-h", "--helpshort"} & set(argv[1:]):
        _help()
    help_of_all = {"--helpfull", "--helpxml"} & set(argv[1:])
    if "config" in flags.FLAGS and not help_of_all and not _without_config(argv):
        argv = check_overrides(argv, flags.FLAGS["config"].parser.parse, EXPERIMENTS)
    try:
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        known = [name for name in flags.FLAGS if not name.startswith("no")]
        raise ConfigError(
            f"unknown flag --{error.flagname}{suggestion(error.flagname, known, '--')}"
        ) from None
    except flags.IllegalFlagValueError as error:
        missing = re.match(
            r"flag --([\w.]+)=None: .* must have a value other than None", str(error)
        )
        if missing:
            raise ConfigError(f"--{missing[1]} is missing; --help shows an example") from None
        raise
    if len(rest) > 1:
        raise ConfigError(f"unexpected argument {rest[1]!r}: options are written --name=value")
    for name in FOLDERS & set(flags.FLAGS):
        folder = str(flags.FLAGS[name].value)
        if "://" in folder and not storage.in_bucket(folder):
            raise ConfigError(
                f"--{name}={folder}: studies, runs and stores live in folders, or in buckets of gs://"
            )
        storage.check(folder)
    return rest


def _without_config(argv: list[str]) -> bool:
    """Whether a command line has no --config and, by one of `_NO_CONFIG`, needs none."""
    given = re.compile(rf"--?({'|'.join(_NO_CONFIG)})(=(t|true|y|yes|1))?", re.IGNORECASE)
    enough = bool(_NO_CONFIG) and any(map(given.fullmatch, argv[1:]))
    return enough and config_path(argv) is None


def _help() -> NoReturn:
    """Prints the command's docstring and its own flags, without those of absl and other
    libraries.
    """
    print((sys.modules["__main__"].__doc__ or "").strip(), "flags:", sep="\n\n")
    for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]):
        default = "" if flag.default is None else f" (default: {flag.default_as_str})"
        print(f"  --{'[no]' if flag.boolean else ''}{flag.name}: {flag.help}{default}")
    if "config" in flags.FLAGS:
        print(
            "  --config.KEY=VALUE: replaces a value of the config, e.g. --config.data.row_bytes=512"
        )
    print("\n--helpfull lists the flags of all libraries.")
    sys.exit(0)
