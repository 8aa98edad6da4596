"""Settings of every registered rule: a rule is tested by being registered."""

from blt_jax.patching import RULES, Patching

SHARED = dict(threshold=0.7, threshold_add=0.1, stride=3)  # each rule takes what it knows
OWN = {"relative": dict(threshold=0.2)}


def settings(rule):
    """Fields of `Patching` that make `rule` begin some patches and not others, where it can."""
    return dict(rule=rule, **(SHARED | OWN.get(rule, {})))


EVERY_RULE = [settings(rule) for rule in RULES]


def patchings(max_lengths=(0, 4)):
    """{name of the case: Patching}"""
    return {
        f"{rule}, cut at {most}" if most else rule: Patching(max_length=most, **settings(rule))
        for rule in RULES
        for most in max_lengths
    }
