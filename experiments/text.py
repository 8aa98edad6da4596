"""The quickstart's families on your own text, with bytes per patch by source.

    python -m launch.sweep --config=experiments/text.py --workdir=runs/text \\
        --config.data.input='texts/*.train.jsonl.gz' \\
        --config.data.validation_input='texts/*.validation.jsonl.gz'

A document's source is its field `source`, else its file's name. Rows are 4,096 bytes; one size and
one budget per family, so that the study is a quick look at how text of several kinds is cut into
patches. Without `validation_input`, documents are split by hash.
"""

from experiments import quickstart


def get_config(_=""):
    config = quickstart.get_config()
    config.name = "text"
    config.budgets = (1e11,)
    for family in config.families.values():
        family.sizes = {"small": family.sizes["small"]}
    config.data.update(max_bytes=6_000_000, validation_max_bytes=300_000, row_bytes=4096)
    config.train.rows = 1
    return config
