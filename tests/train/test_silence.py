"""A silent latent model is told of, and no other."""

import pytest

from blt_jax.train import latent_gradient


def lines(*shares, every=10):
    """Lines of metrics.jsonl with these shares of the latent model's gradient: local models of norm
    5.
    """
    norms = [{"encoder": 3.0, "hash": 9.0, "decoder": 4.0, "latent": 5 * share} for share in shares]
    return [{"step": (i + 1) * every, "norms": {"gradient": one}} for i, one in enumerate(norms)]


def test_silent_in_the_last_tenth():
    told = latent_gradient.warning(lines(*[0.02] * 18, 1e-5, 3e-5), 200, 0.032)
    assert (
        "gradient is 3e-05 of the local models'" in told
        and "lower optimizer.learning_rate (now 0.032)" in told
    )


@pytest.mark.parametrize(
    "shares",
    [
        [0.02] * 20,
        [1e-5] * 18 + [0.02, 1e-5],  # not all of the last tenth
        [1e-5] * 19 + [float("nan")],  # of a step that was skipped: nothing is known
    ],
)
def test_alive(shares):
    assert latent_gradient.warning(lines(*shares), 200, 0.032) == ""


def test_where_nothing_is_known_nothing_is_told():
    of_one_part = {"step": 9, "norms": {"gradient": {"stack": 1.0, "head": 1.0}}}
    for line in (of_one_part, {"step": 9}):
        assert latent_gradient.warning([line], 9, 0.032) == ""
