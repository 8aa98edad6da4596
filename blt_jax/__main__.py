"""blt-jax COMMAND: the commands of `launch`, from any folder.

`python -m blt_jax COMMAND` is the same. In a checkout `python -m launch.COMMAND` is too.
"""

import ast
import importlib.util
import runpy
import sys
from pathlib import Path

from blt_jax.config import nearest

USAGE_EXIT_CODE = 2
PACKAGES = ("launch", "experiments")  # inside this one in a wheel, next to it in a checkout


def importable(name: str) -> Path:
    """Makes a package of ours importable under its name, whatever lies in the current folder.
    Returns its folder.
    """
    here = Path(__file__).parent
    folder = next(place / name for place in (here, here.parent) if (place / name).is_dir())
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None  # of a file, there always is
    sys.modules[name] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return folder


def commands(folder: Path) -> dict[str, str]:
    """{command: the first line of its docstring} of the modules that can be run, by name."""
    files = {path.stem: path for path in folder.glob("*.py")}
    files |= {path.parent.name: path for path in folder.glob("*/__main__.py")}
    summaries = {}
    for name, path in sorted(files.items()):
        text = path.read_text(encoding="utf-8")
        if 'if __name__ == "__main__":' in text:
            paragraph = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
            summaries[name] = " ".join(paragraph.split())
    return summaries


def main() -> int | None:
    launch, _ = (importable(name) for name in PACKAGES)
    known = commands(launch)
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("--help", "-h", "-help", "help"):
        wide = max(map(len, known))
        print("usage: blt-jax COMMAND [--help] [--FLAG=VALUE ...]\n")
        for name, summary in known.items():
            print(f"  {name:<{wide}}  {summary}")
        return 0
    # A part of a command, such as bench.train_step, is for processes that the program starts.
    if command not in known and command.partition(".")[0] not in known:
        print(
            f"error: unknown command {command!r}: {nearest(command, list(known))}", file=sys.stderr
        )
        return USAGE_EXIT_CODE
    del sys.argv[1]
    runpy.run_module(f"launch.{command}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
