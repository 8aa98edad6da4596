"""A run whose disk becomes full, or read-only, ends with one line; with room again it goes on to
the same numbers.
"""

import subprocess

import pytest

from tests.faults import runs

pytestmark = pytest.mark.slow

FAMILY = "bytes"


def mount(folder, *options):
    made = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"cannot mount a small disk here: {made.stderr.strip()}")


@pytest.fixture
def study(tmp_path):
    """A study whose run folder `small` is a disk of its own: for one checkpoint (200 to 290 KiB),
    not for two.
    """
    runs.study(tmp_path)
    (tmp_path / "small").mkdir()
    mount(tmp_path / "small", "-t", "tmpfs", "-o", "size=400k", "tmpfs")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path / "small"], check=True)


def last_line(study):
    return (study / "small.log").read_text().rstrip().splitlines()[-1]


def test_a_full_then_a_read_only_disk(study):
    small = study / "small"
    assert runs.finish(study, FAMILY, "small") == 2
    assert last_line(study).startswith("error: ") and (
        "full" in last_line(study) or "no space" in last_line(study)
    )
    first = runs.newest(small)
    assert 0 < first < runs.STEPS

    mount(small, "-o", "remount,ro,size=50m")
    assert runs.finish(study, FAMILY, "small") == 2
    assert last_line(study).startswith("error: ") and "read-only" in last_line(study).lower()
    assert runs.newest(small) == first

    mount(small, "-o", "remount,rw")
    assert runs.finish(study, FAMILY, "small") == 0
    assert runs.finish(study, FAMILY, "whole") == 0
    assert runs.outcome(small) == runs.outcome(study / "whole")
