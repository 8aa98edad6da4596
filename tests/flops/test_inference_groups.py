"""The groups of equal inference cost of the paper's Table 2 (docs/blt.md, section 11.2), without and
with the entropy model.

The paper gives parameter counts, not shapes. `GROUPS` holds shapes with those counts and the local
models of its Table 10, whose costs are those that docs/blt.md, section 10, finds; `match.shape_for_cost`
then finds the groups again from the cost alone. `pytest -n0 -s` prints both tables. All costs:
"paper" convention, forward, 8,192 bytes of context.
"""

import dataclasses

import pytest

from blt_jax.config import ConfigError, Stack
from blt_jax.families import preset
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.flops import match

ROUNDING = 0.005  # the sheet's figures have three digits
ENTROPY = preset("entropy-100m")


def tokens(layers, width, vocab):
    return Lm(Stack(layers, width, width // 128), vocab=vocab, unit="token")


def patches(name, *, latent_layers=0, encoder_layers=1):
    model = preset(name)
    latent = dataclasses.replace(model.latent, layers=latent_layers or model.latent.layers)
    encoder = dataclasses.replace(model.encoder, layers=encoder_layers)
    return dataclasses.replace(model, encoder=encoder, latent=latent)


# model, bytes per patch or token, dense parameters, FLOPs per byte (None: not given), and of the
# group
GROUPS = {
    "small llama 2": (tokens(24, 1280, 32_000), 3.7, 470e6, 3.14e8, 3.1e8),
    "small llama 3": (tokens(23, 1280, 128_000), 4.4, 450e6, 3.05e8, 3.1e8),
    "small patch 6": (
        patches("blt-400m"),
        6.0,
        550e6,
        3.16e8,
        3.1e8,
    ),  # 550M as in Fig. 1, not Table 2's 610M
    "large llama 2": (tokens(32, 3072, 32_000), 3.7, 3.6e9, 2.13e9, 2.1e9),
    "large llama 3": (tokens(35, 3072, 128_000), 4.4, 3.9e9, None, 2.1e9),
    "large patch 6": (patches("blt-4b", latent_layers=44), 6.0, 5.2e9, 2.05e9, 2.1e9),
    "large patch 8": (patches("blt-8b", encoder_layers=3), 8.0, 6.6e9, 2.10e9, 2.1e9),
}


def dense(model):
    """12 l d^2 for each stack; for BLT also cross-attention and the projections between bytes and
    patches.
    """
    if isinstance(model, Lm):
        return 12 * model.stack.layers * model.stack.width**2
    E, D = model.encoder.width, model.latent.width
    stacks = sum(12 * s.layers * s.width**2 for s in (model.encoder, model.latent, model.decoder))
    cross = 4 * E * E * (model.encoder.layers + model.decoder.layers)
    into = model.slots_width * D if model.slots_width != D else 0
    return stacks + cross + model.slots_width * (E + D) + into


def cost(model, unit, entropy_model=None):
    return match.inference_cost(
        model, patch_size=unit, context_bytes=8192, convention="paper", entropy_model=entropy_model
    )


@pytest.mark.parametrize("name", GROUPS)
def test_group_member(name):
    model, unit, parameters, expected, group = GROUPS[name]
    found = cost(model, unit)
    scored = (
        cost(model, unit, ENTROPY) if isinstance(model, Blt) else found
    )  # token models need no entropies
    print(
        f"\n{name:13} dense {dense(model):.3g} (published {parameters:.3g}), FLOPs/byte "
        f"{found:.3g} "
        f"(group {group:.2g}), with the entropy model {scored:.3g}: {scored / group - 1:+.1%}"
    )
    assert abs(dense(model) / parameters - 1) < 0.02, f"{dense(model):.4g} dense parameters"
    assert expected is None or abs(found / expected - 1) < ROUNDING, (
        f"{found:.4g} FLOPs per byte, {expected:.3g}"
    )
    assert abs(found / group - 1) < 0.025, f"{found:.4g} FLOPs per byte, group {group:.2g}"
    assert isinstance(model, Lm) or scored == pytest.approx(found + 2.10e8, abs=0.005e8)


@pytest.mark.parametrize("group, share", [(3.1e8, 0.66), (2.1e9, 0.10)])
def test_entropy_model_would_break_the_match(group, share):
    """Counting the 100M entropy model adds two thirds to the small group and a tenth to the large
    one.
    """
    assert abs(cost(ENTROPY, 1.0) / group - share) < 0.02


# template of the local models, patch size, cost of the group, dense parameters as published (None:
# unknown)
SOLVED = [
    ("small patch 6", patches("blt-400m"), 6.0, 3.1e8, 550e6),
    (
        "small patch 8",
        patches("blt-400m", encoder_layers=3),
        8.0,
        3.1e8,
        None,
    ),  # 760M fits no such local model
    ("large patch 6", patches("blt-4b"), 6.0, 2.1e9, 5.2e9),
    ("large patch 8", patches("blt-8b", encoder_layers=3), 8.0, 2.1e9, 6.6e9),
]


@pytest.mark.parametrize(
    "name, template, patch_size, group, parameters", SOLVED, ids=[row[0] for row in SOLVED]
)
def test_groups_solved_from_their_cost(name, template, patch_size, group, parameters):
    how = dict(cost=group, patch_size=patch_size, context_bytes=8192, convention="paper")
    found = match.shape_for_cost(template, **how)
    latent = found.model.latent
    published = f"{parameters:.3g}" if parameters else "7.6e8, with local models unknown"
    print(
        f"\n{name}: {latent.layers} layers of {latent.width}, dense {dense(found.model):.3g} "
        "(published "
        f"{published}), {found.flops_per_byte:.4g} FLOPs/byte, {found.mismatch:+.2%}"
    )
    assert abs(found.mismatch) <= match.TOLERANCE
    assert parameters is None or abs(dense(found.model) / parameters - 1) < 0.04


@pytest.mark.parametrize(
    "name, template, patch_size, group, parameters", SOLVED, ids=[row[0] for row in SOLVED]
)
def test_groups_with_the_entropy_model_inside_the_cost(
    name, template, patch_size, group, parameters
):
    """The large group has room for it, at a tenth fewer parameters; the small one has none beside
    the local models.
    """
    how = dict(
        cost=group,
        patch_size=patch_size,
        context_bytes=8192,
        convention="paper",
        entropy_model=ENTROPY,
    )
    if name.startswith("small"):
        with pytest.raises(ConfigError, match="the smallest, with everything else, costs 3[.]"):
            match.shape_for_cost(template, **how)
        return
    found = match.shape_for_cost(template, **how)
    alone = match.shape_for_cost(template, **how | {"entropy_model": None})
    latent = found.model.latent
    print(
        f"\n{name}: {latent.layers} layers of {latent.width}, dense {dense(found.model):.3g}, "
        f"{found.mismatch:+.2%}"
    )
    assert abs(found.mismatch) <= match.TOLERANCE
    assert 0.85 < dense(found.model) / dense(alone.model) < 0.92
