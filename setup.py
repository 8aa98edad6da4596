"""The packages of a wheel: all lie in blt_jax, also `launch` and `experiments`, which a checkout
has beside it (pyproject.toml has everything else).
"""

from setuptools import find_packages, setup

BESIDE = ("launch", "experiments")

setup(
    packages=find_packages(include=["blt_jax", "blt_jax.*"])
    + [
        f"blt_jax.{package}"
        for name in BESIDE
        for package in find_packages(include=[name, f"{name}.*"])
    ],
    package_dir={f"blt_jax.{name}": name for name in BESIDE},
)
