"""Flags of every command: one clear line for what a person got wrong, a traceback for what we did.

`_CONFIG = flags.define_config()` beside a command's other flags, `flags.run(main)` at its end.
"""

import decimal
import difflib
import logging
import os
import re
import sys
from collections.abc import Iterable

from absl import app, flags
from ml_collections import config_dict, config_flags

from blt_jax import storage, storage_errors
from blt_jax.config import ConfigError
from blt_jax.runs.lease import LeaseHeld

flags.disclaim_key_flags()  # what is defined here belongs to the command that asked for it

USAGE_EXIT_CODE = 2
FOLDERS = {"workdir", "output", "compile_cache"}
_NO_CONFIG: set[str] = set()  # boolean flags with which the command needs no --config
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)(?:=(.*))?$", re.DOTALL)


def define_config(unless: Iterable[str] = ()) -> flags.FlagHolder:
    """Defines the required `--config=FILE[:ARG]` and its overrides `--config.KEY=VALUE`; returns
    the flag's holder. With one of the flags `unless` no config is needed.
    """
    holder = config_flags.DEFINE_config_file(
        "config", help_string="file of the experiment: FILE.py[:ARG]"
    )
    if not unless:
        flags.mark_flag_as_required("config")
    _NO_CONFIG.update(unless)
    return holder


def run(main):
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

    logging.getLogger("jax._src.xla_bridge").setLevel(
        logging.WARNING
    )  # of each accelerator that is not here
    app.run(guarded, flags_parser=parse)


def explain(error):
    """The line for an exception that is a person's to mend; None for one that is ours."""
    if isinstance(error, ConfigError | LeaseHeld):
        return str(error)
    told = storage_errors.of_bucket(error)
    if told:
        return f"{told}; mend it, then run the same command again"
    told = storage_errors.of_disk(error)
    return told and "; ".join(told)


def _fail(message):
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(USAGE_EXIT_CODE)


def _parse(argv):
    """The arguments left after the flags, i.e. [program]. Raises ConfigError, flags.Error."""
    if {"--help", "-help", "-h", "--helpshort"} & set(argv[1:]):
        _help()
    help_of_all = {"--helpfull", "--helpxml"} & set(argv[1:])
    if "config" in flags.FLAGS and not help_of_all and not _without_config(argv):
        argv = check_overrides(argv, flags.FLAGS["config"].parser.parse)
    try:
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        known = [name for name in flags.FLAGS if not name.startswith("no")]
        raise ConfigError(
            f"unknown flag --{error.flagname}{_nearest(error.flagname, known, '--')}"
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


def check_overrides(argv, load):
    """Checks `--config` and each `--config.KEY=VALUE` of a command line before ml_collections sees
    them.

    Its own errors are tracebacks, or come late. Returns argv, with whole numbers in the form that
    integer fields take (1e3 -> 1000). `load` makes a ConfigDict from FILE[:ARG]. Raises
    `ConfigError`.
    """
    path = _config_path(argv)
    if path is None:
        raise ConfigError("--config=FILE is missing; --help shows an example")
    _check_file(path.split(":", 1)[0])
    try:
        config = load(path)
    except ConfigError as error:
        # The parser replaces the message of a ValueError by a traceback and keeps the original as
        # context.
        raise ConfigError(str(error.__context__ or error)) from None
    except TypeError as error:
        call = re.search(r"get_config\(\) (?:takes|missing).*", str(error))
        if not call:
            raise
        raise ConfigError(
            f"--config={path}: {call[0]}; the argument is what follows the colon"
        ) from None
    except AttributeError as error:
        if error.name != "get_config":
            raise
        raise ConfigError(f"--config={path}: the file defines no get_config()") from None
    if not hasattr(config, "lock"):  # raises the OSError, if get_config() ended with one
        raise ConfigError(f"--config={path}: get_config() must return a ConfigDict")
    checked = []
    for argument in argv:
        found = _OVERRIDE.match(argument)
        if found:
            field = _field(config, found[1])
            if isinstance(field, int) and not isinstance(field, bool) and found[2] is not None:
                argument = f"--config.{found[1]}={_whole(found[1], found[2])}"
        checked.append(argument)
    return checked


def _config_path(argv):
    for i, argument in enumerate(argv):
        if re.match(r"--?config=", argument):
            return argument.split("=", 1)[1]
        if re.fullmatch(r"--?config", argument) and i + 1 < len(argv):
            return argv[i + 1]
    return None


def _without_config(argv):
    """Whether a command line has no --config and, by one of `_NO_CONFIG`, needs none."""
    given = re.compile(rf"--?({'|'.join(_NO_CONFIG)})(=(t|true|y|yes|1))?", re.IGNORECASE)
    asked = bool(_NO_CONFIG) and any(map(given.fullmatch, argv[1:]))
    return asked and _config_path(argv) is None


def _check_file(path):
    if os.path.isfile(path):
        return
    folder, name = os.path.split(path)
    try:
        beside = [f for f in os.listdir(folder or ".") if f.endswith(".py")]
    except OSError:
        raise ConfigError(
            f"config file {path!r} not found: there is no folder {folder!r}"
        ) from None
    raise ConfigError(
        f"config file {path!r} not found{_nearest(name, beside, os.path.join(folder, ''))}"
    )


def _field(config, key):
    """The value at a dotted key. Indices are left to ml_collections. Raises ConfigError with the
    nearest known key.
    """
    value = config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        name = part.split("[", 1)[0]
        if not isinstance(value, config_dict.ConfigDict):
            raise ConfigError(
                f"config key {'.'.join(parts[:depth])!r} is a value: it has no part {part!r}"
            )
        if name not in value:
            known = list(_keys(config))
            hint = _nearest(key, known) or _nearest(
                parts[-1], {k.rsplit(".", 1)[-1]: k for k in known}
            )
            raise ConfigError(f"unknown config key {key!r}{hint}")
        value = value[name]
        if name != part:
            return None
    return value


def _keys(config, prefix=""):
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, config_dict.ConfigDict):
            yield from _keys(value, f"{prefix}{name}.")


def _nearest(word, known, prefix=""):
    """': did you mean X?', or ''. `known` may map what is compared to what is shown."""
    near = difflib.get_close_matches(word, list(known), 1)
    if not near:
        return ""
    shown = known[near[0]] if isinstance(known, dict) else near[0]
    return f": did you mean {prefix + shown!r}?"


def _whole(key, text):
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        number = decimal.Decimal(text)  # exact, unlike a float, also for 1e25
    except decimal.InvalidOperation:
        number = decimal.Decimal("nan")
    if not number.is_finite() or number != int(number):
        raise ConfigError(f"config key {key!r} = {text!r}: must be a whole number")
    return int(number)


def _help():
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
