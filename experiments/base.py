"""What experiment files are made of: `of(Dataclass, field=value, ...)` -> ConfigDict with every
field.

A file in this folder exports `get_config(arg="")` and returns `of(Study, ...)` or `of(Run, ...)`.
Every field can be overridden on the command line (`--config.data.row_bytes=8192`); unknown fields
are refused. Automatic values stay 0 here and are resolved when the dataclass is built, after
overrides.
"""

import dataclasses

from ml_collections import ConfigDict

from blt_jax.config import ConfigError


def of(kind, **values):
    """ConfigDict with all fields of dataclass `kind`: `values`, and defaults for the rest."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(
            f"{kind.__name__} has no field {unknown[0]!r}; known: {', '.join(fields)}"
        )
    filled = {}
    for name, field in fields.items():
        if name in values:
            filled[name] = values[name]
        elif dataclasses.is_dataclass(field.default):
            filled[name] = of(type(field.default))
        elif field.default is not dataclasses.MISSING:
            filled[name] = field.default
    return ConfigDict(filled)


def tuples(value):
    """JSON lists as tuples, so that flags can override them."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value
