"""Which compression is compute-optimal? The study of arXiv 2605.01188 as one config: patches of 2
to 16 bytes.

    python -m launch.plan  --config=experiments/compute_optimal_tokenization.py --hardware=h100 \\
        --devices=64
    python -m launch.sweep --config=experiments/compute_optimal_tokenization.py \\
        --workdir=runs/tokenization --config.data.input='corpus/*.jsonl.zst'

Question: at a training budget C and a compression T (bytes per patch or token), how many parameters
and how many bytes are best; and which T is best at each C? That paper trained 988 BLTs of 50M to 7B
and published results, no code: the optimum keeps bytes per parameter (about 60), not tokens; the
best T is not BPE's 4.57 and falls with compute. `launch.fit` has its conditional laws.

Every family is one T: entropy patches of a target mean, strided patches, and token models of
several vocabularies (theirs were other tokenizers; here each is trained on the study's text).
Budgets 1e18 to 1e21 (`exact` convention, entropy model apart), each at the sizes whose bytes per
latent parameter lie within a factor of `WINDOW` of 60: an isoFLOP curve of four or five sizes.
Shapes grow by one rule (`latent`), local models with them; the shapes of the paper's models are not
published.

Cost, by `launch.plan --hardware=h100 --mfu=0.4` (exact FLOPs): 323 runs, 56,300 device-hours,
entropy model apart.
"""

from blt_jax.config import Stack, Train
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.flops import parameters
from blt_jax.patching import Patching
from blt_jax.study.config import Family
from blt_jax.study.grid import bytes_per_token
from experiments import published
from experiments.base import of

BUDGETS = (1e18, 1e19, 1e20, 1e21)
WIDTHS = (512, 640, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096)  # 40M to 8B latent parameters
ENTROPY = (2, 3, 4, 4.57, 6, 8, 11, 16)  # mean bytes per patch
STRIDES = (2, 3, 4, 6, 8, 12, 16)
VOCABS = (1_024, 8_192, 32_000, 128_000, 256_000)
OPTIMUM, WINDOW = 60, 10  # bytes per latent parameter


def latent(width):
    """12 layers at width 512, one more for each 128 beyond: 40 at 4096. Heads of 64 channels."""
    return Stack(8 + width // 128, width, width // 64)


def blt(width):
    """Byte states of a third to three quarters of the latent width, a fifth of its layers in the
    decoder.
    """
    large = latent(width)
    local = 128 * round((256 + width / 4) / 128)
    stack = lambda layers: Stack(layers, local, local // 64, window=512)
    decoder = stack(max(2, round(large.layers / 5)))
    return Blt(stack(1), large, decoder, slots=max(2, round(width / local)), hash_rows=100_000)


def tokens(vocab):
    return lambda width: Lm(latent(width), vocab=vocab, unit="token")


def sizes(make, unit):
    """The sizes of a family, each with the budgets on whose isoFLOP curve it lies."""
    found = {}
    for width in WIDTHS:
        config = make(width)
        count = parameters(config)["latent"]
        per_flop = 1 / published.budget(config, unit, 1.0, convention="exact")
        near = lambda c: OPTIMUM / WINDOW <= c * per_flop / count <= OPTIMUM * WINDOW  # noqa: B023
        budgets = [c for c in BUDGETS if near(c)]
        if budgets:
            found[f"w{width}"] = published.size(published.model(config), budgets)
    return found


def get_config(_=""):
    families = {}
    for target in ENTROPY:
        patching = of(Patching, rule="entropy", target=float(target))
        families[f"entropy-{published.key(target)}"] = of(
            Family,
            label=f"entropy patches of {target}",
            patching=patching,
            sizes=sizes(blt, target),
        )
    for stride in STRIDES:
        patching = of(Patching, rule="strided", stride=stride)
        families[f"stride-{stride}"] = of(
            Family,
            label=f"strided patches of {stride}",
            patching=patching,
            sizes=sizes(blt, stride),
        )
    for vocab in VOCABS:
        entries = sizes(tokens(vocab), bytes_per_token(vocab))
        families[f"tokens-{vocab}"] = published.token_family(
            f"tokens, {vocab:,} entries", vocab, entries
        )
    train = of(Train, rows=128, remat="full", device_rows=1)
    return published.study(
        "compute_optimal_tokenization", families, convention="exact", train=train
    )
