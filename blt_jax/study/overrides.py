"""A command line's `--config=FILE[:ARG]` and `--config.KEY=VALUE`, checked before ml_collections
sees them: its own errors are tracebacks, or come late.

FILE may be the bare name of an experiment that comes with the program: `--config=quickstart`.
"""

import decimal
import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ml_collections import config_dict

from blt_jax.config import ConfigError

_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)(?:=(.*))?$", re.DOTALL)


def check_overrides(
    argv: Sequence[str], load: Callable[[str], config_dict.ConfigDict], packaged: Path
) -> list[str]:
    """Checks `--config` and each `--config.KEY=VALUE` of a command line.

    Returns argv, with the file of a bare name in its place, and whole numbers in the form that
    integer fields take (1e3 -> 1000). `load` makes a ConfigDict from FILE[:ARG]; `packaged`: the
    folder of experiments that bare names mean. Raises `ConfigError`.
    """
    argv = list(argv)
    for i, flag in _config_values(argv):
        argv[i] = flag + _file(argv[i].removeprefix(flag), packaged)
    path = config_path(argv)
    if path is None:
        raise ConfigError("--config=FILE is missing; --help shows an example")
    _check_file(path.split(":", 1)[0])
    config = _loaded(path, load)
    checked = []
    for argument in argv:
        override = _OVERRIDE.match(argument)
        if override:
            key, text = override.groups()
            field = _field(config, key)
            if isinstance(field, int) and not isinstance(field, bool) and text is not None:
                argument = f"--config.{key}={_whole(key, text)}"
        checked.append(argument)
    return checked


def suggestion(word: str, known: Sequence[str] | Mapping[str, str], prefix: str = "") -> str:
    """': did you mean X?', or ''. A mapping `known` says what to show for what is compared."""
    near = difflib.get_close_matches(word, list(known), 1)
    if not near:
        return ""
    shown = known[near[0]] if isinstance(known, Mapping) else near[0]
    return f": did you mean {prefix + shown!r}?"


# ---------------------------------------------------------------- the file


def experiments(packaged: Path) -> list[str]:
    """Names of the experiments in a folder: its files that define get_config()."""
    files = sorted(packaged.glob("*.py"))
    return [path.stem for path in files if "\ndef get_config(" in path.read_text()]


def config_path(argv: Sequence[str]) -> str | None:
    """FILE[:ARG] of the first --config, as it is written."""
    values = (argv[i].removeprefix(flag) for i, flag in _config_values(argv))
    return next(values, None)


def _config_values(argv: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(index in argv, what stands before the value there) of each --config."""
    for i, argument in enumerate(argv):
        flag = re.match(r"--?config=", argument)
        if flag:
            yield i, flag[0]
        elif re.fullmatch(r"--?config", argument) and i + 1 < len(argv):
            yield i + 1, ""


def _file(text: str, packaged: Path) -> str:
    """FILE[:ARG] with the path of a packaged experiment for its bare name."""
    name, colon, argument = text.partition(":")
    if not name or os.path.basename(name) != name or name.endswith(".py") or os.path.isfile(name):
        return text
    known = experiments(packaged)
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ", ".join(known)
        raise ConfigError(f"--config={name}: no file, and no experiment of that name: {hint}")
    return f"{packaged / name}.py{colon}{argument}"


def _check_file(path: str) -> None:
    if os.path.isfile(path):
        return
    folder, name = os.path.split(path)
    try:
        neighbours = [file for file in os.listdir(folder or ".") if file.endswith(".py")]
    except OSError:
        raise ConfigError(
            f"config file {path!r} not found: there is no folder {folder!r}"
        ) from None
    raise ConfigError(
        f"config file {path!r} not found{suggestion(name, neighbours, os.path.join(folder, ''))}"
    )


def _loaded(path: str, load: Callable[[str], config_dict.ConfigDict]) -> config_dict.ConfigDict:
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
    return config


# ---------------------------------------------------------------- its keys


def _field(config: config_dict.ConfigDict, key: str) -> object:
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
            hint = suggestion(key, known) or suggestion(
                parts[-1], {k.rsplit(".", 1)[-1]: k for k in known}
            )
            raise ConfigError(f"unknown config key {key!r}{hint}")
        value = value[name]
        if name != part:
            return None
    return value


def _keys(config: config_dict.ConfigDict, prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, config_dict.ConfigDict):
            yield from _keys(value, f"{prefix}{name}.")


def _whole(key: str, text: str) -> int:
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
