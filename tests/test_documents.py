"""What documents, docstrings and comments cite is there: sections, links, files, commands.

A complaint names the file, the line and what is missing.
"""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("blt_jax", "launch", "experiments", "tests", "docs")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PYTHON = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
HERE = Path(__file__).resolve()

# Where a short path like `nn/attention.py` may begin, besides the folder of the file that cites it.
BASES = ("", "blt_jax", "launch", "tests")
NAMES = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")}
OTHERS = {"topics.py"}  # files of Python's own library that we name
# Cited before they are here: they come with the branches of their rooms.
PENDING: set[str] = set()
# Words that stand for somebody's own choice: such a path is an example.
PLACEHOLDER = re.compile(r"NAME|FILE|STUDY|COMMAND|RUN\b|DIR|FAMILY|OUT|[*{<]")
NUMBER = r"\d+(?:\.\d+)*"
SECTIONS = re.compile(
    rf"docs/blt\.md\)?,\s+(?:sections?\s+)?({NUMBER}(?:(?:,|\s+and|\s+to)\s+{NUMBER})*)"
)
FULL_PATH = re.compile(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./*<{{-]*[\w/])")
FILE_NAME = re.compile(r"(?<![\w./:*-])([\w-]+(?:/[\w-]+)*\.(?:py|md|j2|toml|cfg|yml))\b(?![/*])")
COMMAND = re.compile(r"-m (launch|blt_jax)((?:\.\w+)*)(?: (\w+))?")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def prose(path):
    """[(line number, text)] of what is read by people: all of a document; of a Python file the
    comments and docstrings, with the marks of comments blanked."""
    text = path.read_text()
    if path.suffix != ".py":
        return list(enumerate(text.splitlines(), start=1))
    lines = []
    previous = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            lines.append((token.start[0], token.string.lstrip("#")))
        elif token.type == tokenize.STRING and previous in (
            tokenize.NEWLINE,
            tokenize.INDENT,
            tokenize.DEDENT,
        ):
            lines += enumerate(token.string.splitlines(), start=token.start[0])
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING):
            previous = token.type
    return lines


def joined(lines):
    """(one text, function from an offset in it to the line number)."""
    text, starts = "", []
    for number, line in lines:
        starts.append((len(text), number))
        text += line + "\n"
    return text, lambda offset: max(pair for pair in starts if pair[0] <= offset)[1]


def name(path):
    return str(path.relative_to(ROOT))


def headings(path):
    return [line.lstrip("#").strip() for line in path.read_text().splitlines() if line[:1] == "#"]


def anchors(path):
    """The anchors that GitHub gives to headings."""
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings(path)}


def exists(cited, path):
    """Whether a cited path is there: from the root, a base, or the folder of the file that cites
    it; a bare file name may lie anywhere."""
    if any((ROOT / base / cited).exists() for base in BASES) or (path.parent / cited).exists():
        return True
    return cited in PENDING | OTHERS or ("/" not in cited and cited in NAMES)


def complain(path, missing):
    assert not missing, "\n" + "\n".join(f"{name(path)}:{line}: {what}" for line, what in missing)


every_file = pytest.mark.parametrize(
    "path", [p for p in [*DOCUMENTS, *PYTHON] if p != HERE], ids=name
)
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name)


@every_file
def test_sections_of_blt_exist(path):
    known = {m[0] for head in headings(ROOT / "docs/blt.md") if (m := re.match(NUMBER, head))}
    text, line_of = joined(prose(path))
    missing = [
        (line_of(cited.start()), f"docs/blt.md has no section {number}")
        for cited in SECTIONS.finditer(text)
        for number in re.findall(NUMBER, cited[1])
        if number not in known
    ]
    complain(path, missing)


@every_file
def test_paths_exist(path):
    missing = []
    for line, text in prose(path):
        if path.suffix == ".md" and not re.search(r"`|^    |\|", text):
            continue  # outside code there are no paths
        for cited in {*FULL_PATH.findall(text), *FILE_NAME.findall(text)}:
            if not PLACEHOLDER.search(cited) and not exists(cited, path):
                missing.append((line, f"there is no {cited}"))
    complain(path, missing)


@every_document
def test_links_lead_somewhere(path):
    missing = []
    for line, text in prose(path):
        for target in LINK.findall(text):
            file, _, anchor = target.partition("#")
            if target.startswith(("https://", "http://", "mailto:")):
                continue
            goal = (path.parent / file).resolve() if file else path
            if not goal.is_relative_to(ROOT) or not goal.exists():
                missing.append((line, f"link to {target}: no such file"))
            elif anchor and anchor not in anchors(goal):
                missing.append((line, f"link to {target}: no such heading"))
    complain(path, missing)


@every_file
def test_commands_exist(path):
    missing = []
    for line, text in prose(path):
        for package, inner, argument in COMMAND.findall(text):
            command = package + inner if inner else f"launch.{argument}"
            if PLACEHOLDER.search(command) or not (inner or argument):
                continue
            place = ROOT / command.replace(".", "/")
            if not (place.with_suffix(".py").exists() or (place / "__main__.py").exists()):
                missing.append((line, f"there is no command {command}"))
    complain(path, missing)


def test_sections_are_numbered_in_order():
    numbers = [
        tuple(map(int, m[0].split(".")))
        for head in headings(ROOT / "docs/blt.md")
        if (m := re.match(NUMBER, head))
    ]
    assert numbers == sorted(set(numbers)) and [n[0] for n in numbers if len(n) == 1] == [
        *range(1, numbers[-1][0] + 1)
    ]


def test_what_is_pending_is_still_missing():
    come = [cited for cited in PENDING if any((ROOT / base / cited).exists() for base in BASES)]
    assert not come, f"{come} are here: take them from PENDING"


def test_ci_runs_the_test_command_of_the_readme():
    command = next(
        line.strip()
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("    pip install") and line.endswith("pytest")
    )
    assert command in (ROOT / ".ci" / "run").read_text()
    assert "run: .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
