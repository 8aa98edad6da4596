"""Folders of safetensors: one `model.safetensors`, or shards with `model.safetensors.index.json`.
Never pickle.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from blt_jax.config import ConfigError
from blt_jax.storage import write_json
from blt_jax.storage_errors import writing

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F32", "F16", "BF16", "F64")


class Weights(Mapping):
    """Names -> float32 arrays of a folder, each read when it is asked for. Raises ConfigError in
    one line.
    """

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        if (folder / INDEX).exists():
            try:
                names = json.loads((folder / INDEX).read_text())["weight_map"]
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{folder / INDEX}: no weight_map can be read from it ({error!r})"
                ) from None
            outside = [file for file in set(names.values()) if Path(file).name != file]
            if outside:
                raise ConfigError(
                    f"{folder / INDEX}: names a file outside its folder ({outside[0]})"
                )
            files = sorted(set(names.values()))
        elif (folder / SINGLE).exists():
            names, files = None, [SINGLE]
        else:
            raise ConfigError(f"{folder}: holds neither {SINGLE} nor {INDEX}")
        self._file_of = {}
        self._open = {file: _opened(folder / file) for file in files}
        for file, opened in self._open.items():
            for name in opened.keys():
                self._file_of[name] = file
        for name, file in (names or {}).items():
            if self._file_of.get(name) != file:
                raise ConfigError(
                    f"{folder / file}: tensor {name} is missing, though {INDEX} says it is there"
                )
        self.folder = folder

    def __getitem__(self, name: str) -> np.ndarray:
        opened = self._open[self._file_of[name]]
        kind = opened.get_slice(name).get_dtype()
        if kind not in FLOATS:
            raise ConfigError(
                f"{self.folder}: tensor {name} is {kind}: must be one of {', '.join(FLOATS)}"
            )
        return np.asarray(opened.get_tensor(name)).astype(np.float32)

    def __iter__(self):
        return iter(self._file_of)

    def __len__(self):
        return len(self._file_of)


def _opened(path):
    try:
        return safe_open(path, framework="flax")  # the NumPy flavour knows no bfloat16
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: cannot be read as safetensors: {' '.join(str(error).split())}"
        ) from None


def save_weights(
    folder: str | Path, named: Iterable[tuple[str, np.ndarray]], max_shard_bytes: int
) -> None:
    """Writes (name, float32 array) pairs; more than `max_shard_bytes` in all become shards with an
    index.

    A shard is written whole under another name and renamed; the index comes last. Of files that an
    earlier save left there, the one that would be read instead is removed.
    """
    folder = Path(folder)
    shards: list[tuple[Path, list[str]]] = []
    sizes: list[int] = []
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        pending: dict[str, np.ndarray] = {}
        size = 0
        for name, array in named:
            if pending and size + array.nbytes > max_shard_bytes:
                shards.append(_written(folder, len(shards), pending))
                sizes.append(size)
                pending, size = {}, 0
            pending[name] = array
            size += array.nbytes
        shards.append(_written(folder, len(shards), pending))
        sizes.append(size)
        weight_map: dict[str, str] = {}
        (folder / INDEX).unlink(missing_ok=True)
        for number, (temporary, names) in enumerate(shards, start=1):
            file = (
                SINGLE
                if len(shards) == 1
                else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            )
            os.replace(temporary, folder / file)
            weight_map |= dict.fromkeys(names, file)
        if len(shards) > 1:
            (folder / SINGLE).unlink(missing_ok=True)
            write_json(
                folder / INDEX, {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
            )


def _written(folder, number, tensors):
    temporary = folder / f"shard-{number:05d}.tmp"
    # transformers wants to know how axes are laid out.
    save_file(tensors, temporary, metadata={"format": "pt"})
    return temporary, list(tensors)
