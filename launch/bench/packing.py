"""How full are rows of real text, and how fast is their index made? Of a study's own store, with
its entropies.

    python -m launch.sweep --config=experiments/text.py --workdir=runs/text \\
        --config.data.input='texts/*.train.jsonl.gz'
    python -m launch.bench --suite=packing --store=runs/text/store --json=packing.json

For entropy patches of 4.5 and 6 positions (thresholds solved on this store) and space patches, in
rows of 8,192 bytes: waste is the share of byte positions and of patch slots that no row uses. The
index is timed in process time, from the store on disk (text and entropies read, rule applied) to
the files of the index, the trial packings that choose P included; the solving of thresholds is a
column of its own. MB: 1e6 text bytes.
"""

import functools
import tempfile
import time
from pathlib import Path
from typing import Any

from blt_jax.config import ConfigError
from blt_jax.data import pack
from blt_jax.data.store import Store
from blt_jax.patching import Patching
from blt_jax.patching.row_starts import document_starts
from blt_jax.study import prepare

ROW_BYTES = 8192
PATCHINGS = {
    "entropy, 4.5": Patching(target=4.5),
    "entropy, 6": Patching(target=6.0),
    "space": Patching(rule="space"),
}


def measure(quick: bool = False, store: str | Path = "") -> dict[str, Any]:
    if not store:
        raise ConfigError(
            "--suite=packing needs --store=STUDY/store: a store with entropies, as a study "
            "prepares it"
        )
    train = Store(store, "train")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, patching in list(PATCHINGS.items())[: 1 if quick else None]:
            begin = time.process_time()
            path = Path(folder) / f"{name}.json"
            calibrated = prepare.calibrated(name, patching, train, path).patching
            solved = time.process_time()
            starts_of = functools.partial(document_starts, train, patching=calibrated)
            header = pack.build_index(
                train, Path(folder) / name, positions=ROW_BYTES, starts_of=starts_of
            )
            built = time.process_time()
            rows.append(
                {
                    "patches": name,
                    "threshold": calibrated.threshold if calibrated.needs_entropies else None,
                    "bytes_per_patch": header["text_bytes_per_patch"],
                    "rows": header["rows"],
                    "P": header["row_patches"],
                    "byte_waste_%": 100 * header["byte_waste"],
                    "patch_waste_%": 100 * header["patch_waste"],
                    "spans_per_row": header["spans"] / header["rows"],
                    "threshold_MB/s": train.text_bytes / 1e6 / (solved - begin),
                    "index_MB/s": train.text_bytes / 1e6 / (built - solved),
                }
            )
    size = f"{train.text_bytes:,} text bytes in {len(train):,} documents"
    return {"tables": {f"{size}, rows of {ROW_BYTES}": rows}}
