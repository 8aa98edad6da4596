"""Configs as records: nested dicts and JSON <-> config dataclasses, and their fingerprints."""

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from blt_jax.config import ConfigError, nearest

T = TypeVar("T")


def build(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Makes dataclass `kind` from nested dicts. Raises ConfigError naming the field and the nearest
    known key. `where`: path of the record within a larger one.
    """
    dataclass: Any = kind
    fields = {f.name: f for f in dataclasses.fields(dataclass)}
    hints = typing.get_type_hints(kind)
    made = {}
    for key, value in dict(values).items():
        path = f"{where}.{key}" if where else key
        if key not in fields:
            raise ConfigError(f"unknown config key {path!r}: {nearest(key, fields)}")
        made[key] = _convert(hints[key], value, path)
    missing = [n for n, f in fields.items() if n not in made and f.default is dataclasses.MISSING]
    if missing:
        raise ConfigError(f"{where or kind.__name__}: {', '.join(missing)} must be set")
    try:
        return kind(**made)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}" if where else str(error)) from None


def _convert(hint, value, path):
    if hasattr(hint, "of_kind"):  # one of several classes; the record says which
        kind = dict(value).get("kind")
        try:
            chosen = hint.of_kind(kind)
        except ConfigError as error:
            raise ConfigError(f"{path}.{error}") from None
        return build(chosen, value, path)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):  # only "X | None" occurs
        if value is None:
            return None
        return _convert(args[0], value, path)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, path)
    if origin is dict:
        return {k: _convert(args[1], v, f"{path}.{k}") for k, v in dict(value).items()}
    if origin is tuple:
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise ConfigError(f"{path} = {value!r}: must be a list of {args[0].__name__}")
        return tuple(_convert(args[0], v, path) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    wrong = not isinstance(value, hint) or (hint is not bool and isinstance(value, bool))
    if wrong or (hint is float and not math.isfinite(value)):
        raise ConfigError(f"{path} = {value!r}: must be {hint.__name__}")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """The resolved config as plain JSON types; `build(type(config), to_dict(config)) == config`."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def fingerprint(*parts: Any) -> str:
    """16 hex digits that change if and only if a part (dataclass or JSON value) changes."""
    plain = [_recorded(p) for p in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _recorded(value):
    """Plain JSON types, without `later` fields at their defaults."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        later = {f.name: f.default for f in dataclasses.fields(value) if f.metadata.get("later")}
        return {
            name: _recorded(item)
            for name, item in fields.items()
            if name not in later or item != later[name]
        }
    if isinstance(value, dict):
        return {key: _recorded(item) for key, item in value.items()}
    return [_recorded(item) for item in value] if isinstance(value, (list, tuple)) else value


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Paths at which two nested dicts differ, as 'a.b: old -> new' lines."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        path = lambda key: f"{where}.{key}" if where else key
        return [line for k in keys for line in differences(old.get(k), new.get(k), path(k))]
    return [] if old == new else [f"{where}: {old} -> {new}"]
