"""Documents -> store; with an entropy model, their entropies too.

    python -m launch.preprocess --input='texts/*.jsonl.gz' --output=store
    python -m launch.preprocess --input='texts/*.jsonl.gz' --output=store --entropy_model=STUDY/entropy_model

A stage that is done is not repeated. `stdlib` as --input is the text of Python's own standard library.
"""

from absl import flags

from blt_jax.config import Data
from launch import flags as launch_flags
from launch import prepare

INPUT = flags.DEFINE_string("input", None, "stdlib, or a glob of .jsonl[.gz|.zst], .parquet, .txt.", required=True)
VALIDATION = flags.DEFINE_string("validation_input", "", "A glob; without it, documents are split by hash.")
FIELD = flags.DEFINE_string("field", "text", "The field that holds the text.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the store.", required=True)
ENTROPY = flags.DEFINE_string("entropy_model", "", "Run folder of an entropy model.")
RESET = flags.DEFINE_boolean("newline_reset", False, "Restart the entropy model's context after each newline.")


def main(_):
    data = Data(input=INPUT.value, validation_input=VALIDATION.value, field=FIELD.value)
    stores, _ = prepare.store(data, OUTPUT.value)
    if ENTROPY.value:
        prepare.entropies(ENTROPY.value, stores, OUTPUT.value, RESET.value)
    return 0


if __name__ == "__main__":
    launch_flags.run(main)
