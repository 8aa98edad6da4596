"""Documents -> store; with an entropy model, their entropies too.

    python -m launch.preprocess --input='texts/*.jsonl.gz' --output=store
    python -m launch.preprocess --input='gs://bucket/*.parquet' --output=store \\
        --entropy_model=STUDY/entropy_model

`stdlib` as --input is the text of Python's own standard library. What is done is not repeated, and
a command that was killed goes on when it is given again.

Many processes on one shared folder, such as array jobs, take a stage in pieces, in any order and as
often as they like; a stage needs the one before it. Each of them lists the input, and reads and
writes its own share only. The store has the same files, byte for byte, for any number of pieces.

    run="python -m launch.preprocess --input=s3://bucket/*.jsonl.zst"
    run="$run --output=/shared/store --pieces=64"
    sbatch --array=0-63 --wait --wrap "$run --stage=read --piece=\\$SLURM_ARRAY_TASK_ID"
    sbatch --array=0-63 --wait --wrap "$run --stage=sort --piece=\\$SLURM_ARRAY_TASK_ID"
    $run --stage=merge
    run="$run --entropy_model=/shared/entropy_model"
    sbatch --array=0-63 --wait --gpus=8 \\
        --wrap "$run --stage=entropies --piece=\\$SLURM_ARRAY_TASK_ID"
    $run --stage=merge
"""

from absl import flags

from blt_jax.config import ConfigError, Data
from blt_jax.data.parts import Piece
from blt_jax.data.shuffle import SPLITS
from blt_jax.data.store import Store
from blt_jax.study import entropy_stage, prepare
from launch import flags as launch_flags
from launch import progress_bar

KINDS = "local or any fsspec URL (gs://, s3://, ...)"
INPUT = flags.DEFINE_string(
    "input", None, f"stdlib, or a glob of .jsonl[.gz|.zst], .parquet, .txt; {KINDS}.", required=True
)
VALIDATION = flags.DEFINE_string(
    "validation_input", "", "A glob; without it, documents are split by hash."
)
FIELD = flags.DEFINE_string("field", "text", "The field that holds the text.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the store.", required=True)
ENTROPY = flags.DEFINE_string("entropy_model", "", "Run folder of an entropy model.")
RESET = flags.DEFINE_boolean(
    "newline_reset", False, "Restart the entropy model's context after each newline."
)
ROWS = flags.DEFINE_integer(
    "rows", 0, "Rows that a device scores at a time; 0: 128 Ki ids, on CPU 16 Ki.", lower_bound=0
)
STAGE = flags.DEFINE_enum(
    "stage", "all", ["all", "read", "sort", "merge", "entropies"], "What to do."
)
PIECES = flags.DEFINE_integer("pieces", 1, "Processes that share a stage.")
PIECE = flags.DEFINE_integer("piece", 0, "Which of them this is, from 0.")


def main(_: list[str]) -> int:
    data = Data(input=INPUT.value, validation_input=VALIDATION.value, field=FIELD.value)
    piece, folder, model = Piece(PIECE.value, PIECES.value), OUTPUT.value, ENTROPY.value
    stage = STAGE.value
    if stage == "all" and piece.of > 1:
        raise ConfigError(f"--pieces={piece.of}: say which --stage; --help shows them in order")
    if stage == "entropies" and not model:
        raise ConfigError("--stage=entropies: give --entropy_model, the run folder of a byte LM")
    with progress_bar.Printed() as progress:
        if stage in ("all", "read"):
            prepare.read(data, folder, piece, progress)
        if stage in ("all", "sort"):
            prepare.sort(data, folder, piece, progress)
        if stage in ("all", "merge"):
            prepare.merge(data, folder, piece, progress)
        if model and stage in ("all", "entropies", "merge"):
            stores = {split: Store(folder, split) for split in SPLITS}
            if stage != "merge":
                entropy_stage.score(
                    model, stores, RESET.value, piece, ROWS.value, progress=progress
                )
            if stage != "entropies":
                entropy_stage.merge_entropies(model, stores, folder, RESET.value, piece)
    if piece.of > 1:
        print(f"stage {stage}, piece {piece.number} of {piece.of}: done")
    return 0


if __name__ == "__main__":
    launch_flags.run(main)
