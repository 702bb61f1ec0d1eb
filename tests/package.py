"""The package as a newcomer gets it: the wheel in an empty environment, and there each block of the README, in its order.

    python tests/package.py FOLDER

The folder holds one wheel and one source distribution. A block that names an extra in a comment, as in
`# pip install keras_seq[plots]`, runs after that extra is installed; all others run without any.
"""

import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import venv

from code_blocks import code_blocks

README = pathlib.Path(__file__).parents[1] / "README.md"
IN_SOURCES = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "docs",
    "examples",
    "setup.cfg",
    "tests",
    "tox.ini",
}


def only(folder, pattern):
    """The one file of the folder that fits the pattern."""
    (found,) = pathlib.Path(folder).glob(pattern)
    return found


def check_sources(sources):
    with tarfile.open(sources) as archive:
        inside = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    if missing := IN_SOURCES - inside:
        raise SystemExit(f"{sources.name} lacks {sorted(missing)}")


def blocks(text):
    """`(extra or None, code)` of each block of Python, those without an extra first."""
    code = code_blocks(text)
    extras = [re.search(r"# pip install keras_seq\[(\w+)\]", block) for block in code]
    return sorted([(e and e[1], c) for e, c in zip(extras, code, strict=True)], key=lambda pair: pair[0] is not None)


def timed(what, *command, **kwargs):
    start = time.perf_counter()
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **kwargs)
    print(f"{time.perf_counter() - start:7.1f} s  {what}", flush=True)
    if result.returncode:
        raise SystemExit(f"{result.stdout}\n{result.stderr}\nfailed: {what}")
    return result.stdout


def main(folder):
    check_sources(only(folder, "*.tar.gz"))
    wheel = only(folder, "*.whl")
    with tempfile.TemporaryDirectory() as home:
        venv.create(home, with_pip=True)
        python = pathlib.Path(home) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        timed(f"pip install {wheel.name}", python, "-m", "pip", "install", "--quiet", wheel)
        installed = set()
        for number, (extra, code) in enumerate(blocks(README.read_text()), 1):
            if extra not in {None, *installed}:
                timed(f"pip install keras_seq[{extra}]", python, "-m", "pip", "install", "--quiet", f"{wheel}[{extra}]")
                installed.add(extra)
            title = next(line for line in code.splitlines() if "keras_seq." in line or "Model(" in line).strip()
            said = timed(f"block {number}: {title}", python, "-c", code, cwd=home)
            print("".join(f"             {line}\n" for line in said.splitlines()[-2:]), end="")


if __name__ == "__main__":
    main(sys.argv[1])
