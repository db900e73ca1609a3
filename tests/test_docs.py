"""The documents say what is so: their examples run, their links lead somewhere, their names exist.

In a page, a ```python block with ``>>>`` is a session; one with ``__main__`` is a script, run in a
process of its own, whose output is the ```text block behind it; any other one is a part of the
sessions around it. All sessions of a page share their names. The commands of a ```console block
run in one shell, and print what follows them; a ... stands for anything. Blocks that begin with the
name of a file, as ``# conftest.py``, are a test suite, together with the others under their
heading: two workers run it, and a ```text block there is what pytest shows at the end, whatever
the figures.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import pytest

import shmstore
from shmstore import cli, layout, protocol, runtime, segment
from shmstore.errors import ShmstoreError
from shmstore.pytest import closing, obtaining, plugin, run, values
from shmstore.pytest import errors as plugin_errors
from shmstore.server import Server
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SECONDS_MAX = 60
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
MODULES = {
    "closing": closing, "layout": layout, "obtaining": obtaining, "protocol": protocol,
    "segment": segment,
}  # fmt: skip
"""Those whose constants tables name."""
PATTERN = (
    "child_spec", "start_link", "clear", "clear_namespace", "count", "delete", "find_active", "get",
    "insert", "list", "list_namespace", "prefix", "table_name", "update",
)  # fmt: skip


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The name of the file of a test suite that this is; None if it is none."""
        found = re.match(r"# ([\w/]+\.(?:py|toml))\n", self.text)
        return found and found[1]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start(2)))
        for found in FENCE.finditer(text)
    ]


def prose_of(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def pages_with(kind: str) -> list[Path]:
    return [page for page in PAGES if any(block.kind == kind for block in blocks_of(page))]


def each_page(pages: list[Path]) -> Any:
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def environment() -> dict[str, str]:
    """The environment of a process that finds this package, wherever it runs."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def agree(wanted: str, got: str, where: str) -> None:
    assert doctest.OutputChecker().check_output(wanted, got, OPTIONS), (
        f"{where}: the page says\n{wanted}\nbut what comes is\n{got}"
    )


# Python


class Sessions:
    """The sessions of one page: they share their names."""

    def __init__(self, name: str, **names: Any) -> None:
        self._name = name
        self._names = {"__name__": "__page__", **names}

    def run(self, block: Block) -> None:
        if ">>>" not in block.text:
            source = "\n" * block.line + block.text
            exec(compile(source, self._name, "exec", dont_inherit=True), self._names)
            return
        parser = doctest.DocTestParser()
        test = parser.get_doctest(block.text, {}, self._name, self._name, block.line)
        test.globs = self._names
        said: list[str] = []
        doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append, clear_globs=False)
        assert not said, "".join(said)

    def end(self) -> None:
        for server in [each for each in self._names.values() if isinstance(each, Server)]:
            server.close()
        self._names.clear()


@contextlib.contextmanager
def sessions(name: str, **names: Any) -> Iterator[Sessions]:
    running = Sessions(name, **names)
    try:
        yield running
    finally:
        running.end()


def run_script(block: Block, folder: Path, where: str) -> str:
    path = folder / f"example_{block.line}.py"
    path.write_text(block.text)
    ran = subprocess.run(
        [sys.executable, path.name],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert ran.returncode == 0, f"{where} failed:\n{ran.stderr}"
    return ran.stdout


@each_page(pages_with("python"))
def test_python_examples_run(page, tmp_path):
    blocks = blocks_of(page)
    skip_without_numpy(blocks)
    with sessions(page.name) as running:
        for block, behind in zip(blocks, [*blocks[1:], None], strict=True):
            if block.kind != "python" or block.file:
                continue
            if "__main__" in block.text:
                where = f"{page.name}, line {block.line}"
                output = run_script(block, tmp_path, where)
                agree(behind.text if behind and behind.kind == "text" else "", output, where)
            else:
                running.run(block)


# Test suites


class Section(NamedTuple):
    """A test suite under a heading of a page, and what pytest shows of it."""

    page: str
    heading: str
    files: list[Block]
    shown: list[Block]


def sections() -> list[Section]:
    """The sections of all pages that have the files of a test suite."""
    found = []
    for page in PAGES:
        text = page.read_text()
        prose = FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)
        headings = [*re.finditer(r"^#+ (.+)$", prose, re.MULTILINE)]
        lines = [text.count("\n", 0, heading.start()) for heading in headings] + [sys.maxsize]
        for heading, start, end in zip(headings, lines, lines[1:], strict=False):
            inside = [block for block in blocks_of(page) if start < block.line < end]
            files = [block for block in inside if block.file]
            shown = [block for block in inside if block.kind == "text"]
            if files:
                found.append(Section(page.name, heading[1], files, shown))
    return found


def without_figures(lines: list[str]) -> list[str]:
    """Lines without what differs from run to run: figures, the workers' numbers, the spaces."""
    return [" ".join(re.sub(r"\d[\d.,]*", "0", line).strip("= ").split()) for line in lines]


def skip_without_numpy(blocks: list[Block]) -> None:
    if "import numpy" in "".join(block.text for block in blocks):
        pytest.importorskip("numpy", reason="numpy, which is an extra, is not installed")


@pytest.mark.parametrize(
    "section", sections(), ids=lambda section: f"{section.page}: {section.heading}"
)
def test_suites_run(suite, section):
    skip_without_numpy(section.files)
    (suite.path / "benchmarks").symlink_to(ROOT / "benchmarks")
    for block in section.files:
        (suite.path / str(block.file)).write_text(block.text)
    result = suite.run("--shared-durations", "--strict-config", pinned=False)
    has_tests = any("def test_" in block.text for block in section.files)
    assert result.ret == (pytest.ExitCode.OK if has_tests else pytest.ExitCode.NO_TESTS_COLLECTED)
    lines = "".join(block.text for block in section.shown).splitlines()
    shown = pytest.LineMatcher(without_figures(result.outlines))
    shown.fnmatch_lines_random(without_figures(lines))


def modules() -> list[str]:
    return ["shmstore"] + [
        found.name
        for found in pkgutil.walk_packages(shmstore.__path__, "shmstore.")
        if not found.name.endswith("__main__")
    ]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        text = test.docstring or ""
        with sessions(test.name, shmstore=shmstore) as running:
            if test.examples:
                running.run(Block("python", text, test.lineno or 0))
            for example in re.findall(r"::\n\n((?: +\S.*\n|\n)+)", f"{text}\n"):
                lines = example.splitlines(keepends=True)
                margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
                source = "".join(line[margin:] or "\n" for line in lines)
                running.run(Block("python", source, test.lineno or 0))


# The command line


@contextlib.contextmanager
def shell(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A shell in which ``shmstore`` is the command of this package."""
    command = folder / "bin" / "shmstore"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m shmstore "$@"\n')
    command.chmod(0o700)
    path = f"{command.parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "--norc"],
        cwd=folder,
        env={**environment(), "PATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write("\nkill $(jobs -p) 2>/dev/null; wait\n")
            process.stdin.close()
        process.wait(SECONDS_MAX)
        assert process.stdout is not None
        process.stdout.close()


def told(process: subprocess.Popen[str], command: str) -> str:
    """Run one command; return what it printed."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{command}\necho; echo '== said'\n")
    process.stdin.flush()
    lines = []
    for line in process.stdout:
        if line == "== said\n":
            break
        lines.append(line)
    return "".join(lines)


@each_page(pages_with("console"))
def test_commands_run(page, tmp_path):
    sample = tmp_path / "benchmarks"
    sample.symlink_to(ROOT / "benchmarks")
    with shell(tmp_path) as process:
        for block in (block for block in blocks_of(page) if block.kind == "console"):
            first, *steps = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
            assert not first, f"{page.name}, line {block.line}: a console begins with a command"
            for step in steps:
                command, _, wanted = step.partition("\n")
                said = told(process, command)
                agree(wanted, said, f"{page.name}, line {block.line}: {command}")
                served = re.fullmatch(r"shmstore serve (\w+).*&", command)
                if served:
                    eventually(partial(is_running, served[1]))


def is_running(name: str) -> bool:
    return name in runtime.running()


def helps() -> list[tuple[str, str]]:
    """All command lines that the command line's own help shows, by command."""
    found = []
    for command in ("", "serve", "ls", "get", "put", "delete", "load", "dump", "stats", "check"):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert cli.main([command, "--help"] if command else ["--help"]) == 0
        examples = said.getvalue().partition("examples:")[2]
        found += [(command, line.strip()) for line in examples.splitlines() if "shmstore " in line]
    return found


@pytest.mark.parametrize(("command", "line"), helps())
def test_examples_of_the_help_can_be_parsed(command, line):
    for part in re.split(r"[|&>]", line):
        words = shlex.split(part)
        if words and words[0] == "shmstore" and "COMMAND" not in words:
            assert cli._parser().parse_args(words[1:])


# Links and names


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading).strip().lower() for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@each_page(PAGES)
def test_links_lead_somewhere(page):
    for link in LINK.findall(prose_of(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if anchor:
            assert anchor in anchors_of(target), f"{link}: there is no such heading"


def test_every_page_can_be_reached():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(prose_of(page)))
        waiting += [(page.parent / link).resolve() for link in links if link and ":" not in link]
    assert set(PAGES) <= reached


def resolved(dotted: str) -> Any:
    found: Any = shmstore
    for part in dotted.split(".")[1:]:
        name = f"{getattr(found, '__name__', '')}.{part}"
        found = getattr(found, part, None) or importlib.import_module(name)
    return found


@each_page(PAGES)
def test_names_exist(page):
    for code in CODE.findall(prose_of(page)):
        dotted = re.match(r"shmstore(?:\.\w+)+", code)
        if dotted and not (ROOT / code).exists():
            assert resolved(dotted[0]) is not None
        if re.fullmatch(r"(?:shmstore|tests|docs|scripts|benchmarks)/[\w./-]+", code):
            assert (ROOT / code).exists(), f"{code} does not exist"


def tour(ending: str = "py") -> list[str]:
    """The files of the tours whose names end so, in their order."""
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| (`[^|]+) \|", text.partition("## Tour")[2], re.MULTILINE)
    return re.findall(rf"`([\w/]+\.{ending})`", "\n".join(rows))


@pytest.mark.parametrize("ending", ["py", "[ch]"])
def test_the_tour_names_every_file(ending):
    package = ROOT / "shmstore"
    tree = {str(path.relative_to(package)) for path in package.glob(f"**/*.{ending}")}
    assert sorted(tour(ending)) == sorted(tree)


@pytest.mark.parametrize("file", tour("[ch]"))
def test_includes_point_down_the_tour(file):
    text = (ROOT / "shmstore" / file).read_text()
    included = re.findall(r'^#include "(\w+\.h)"', text, re.MULTILINE)
    below = tour("[ch]")[tour("[ch]").index(file) + 1 :]
    assert [name for name in included if f"native/{name}" not in below] == []


def floors() -> list[tuple[str, dict[str, int]]]:
    """(package, floor by module) of the contracts that the check of import layers keeps."""
    text = (ROOT / "pyproject.toml").read_text()
    pattern = r"^containers = \[(.*)\]$(?:\n.*)*?\nlayers = \[((?:\n    .*)*)\n\]$"
    found = []
    for containers, layers in re.findall(pattern, text, re.MULTILINE):
        names = [re.findall(r"\w+", line) for line in layers.splitlines()]
        floor_of = {name: floor for floor, modules in enumerate(names) for name in modules}
        packages = re.findall(r'"shmstore\.?([\w.]*)"', containers)
        paths = [f"{package}/".replace(".", "/").lstrip("/") for package in packages]
        found += [(path, floor_of) for path in paths]
    return found


@pytest.mark.parametrize(
    ("package", "floor_of"), floors(), ids=[package or "shmstore/" for package, _ in floors()]
)
def test_the_tour_goes_down_floor_by_floor(package, floor_of):
    inside = [path[len(package) :] for path in tour() if path.startswith(package)]
    names = [path.removesuffix(".py").partition("/")[0] for path in inside]
    names = [name for name in names if name != "__init__"]
    assert names
    assert [name for name in names if name not in floor_of] == [], "no floor in pyproject"
    met = [floor_of[name] for name in names]
    assert met == sorted(met)


def test_every_public_name_is_in_the_documents():
    prose = "".join(page.read_text() for page in PAGES)
    missing = [name for name in shmstore.__all__ if not re.search(rf"\b{name}\b", prose)]
    for owner in (shmstore.Table, shmstore.Store, shmstore.Client, shmstore.Server):
        missing += [
            f"{owner.__name__}.{name}"
            for name in vars(owner)
            if not name.startswith("_") and not re.search(rf"\b{name}\b", prose)
        ]
    assert not missing


def test_every_error_is_explained():
    rows = re.findall(r"^\| `(\w+)`", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    kinds = {kind.__name__ for kind in vars(shmstore).values() if is_error(kind)}
    assert sorted(rows) == sorted(kinds)


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, ShmstoreError)


def rows_of_the_plugin(heading: str) -> dict[str, str]:
    """The last cell of each row under a heading, by the name in the first."""
    section = (ROOT / "docs/pytest.md").read_text().partition(f"## {heading}\n")[2]
    rows = re.findall(r"^\| `(\w+)` \|.*?([^|]*) \|$", section.partition("\n## ")[0], re.MULTILINE)
    return dict(rows)


def test_every_error_of_the_plugin_is_explained():
    kinds = {**vars(plugin_errors), **vars(values)}.values()
    errors = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]
    own = {kind.__name__ for kind in errors if kind.__module__.startswith("shmstore.pytest.")}
    assert set(rows_of_the_plugin("Errors")) == own


def test_every_fixture_of_the_plugin_is_explained():
    assert sorted(rows_of_the_plugin("The store itself")) == sorted(plugin.__all__)


def test_every_setting_of_the_plugin_is_explained():
    parser = Mock()
    plugin.pytest_addoption(parser)
    defaults = {call.args[0]: call.kwargs["default"] for call in parser.addini.call_args_list}
    defaults["shmstore_capacity"] = run.CAPACITY
    rows = rows_of_the_plugin("Settings")
    assert {name for name in rows if name.startswith("shmstore_")} == set(defaults)
    for name, default in defaults.items():
        assert rows[name].strip().startswith(f"`{str(default).replace('T', 't')}`")


def test_each_function_of_the_pattern_is_mapped():
    page = (ROOT / "docs/stores.md").read_text()
    section = page.partition("## The pattern, function by function")[2].partition("\n## ")[0]
    cells = "\n".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))
    assert set(re.findall(r"`(\w+)", cells)) == set(PATTERN)


# Numbers


def numbers() -> list[tuple[str, str, str]]:
    """Rows of tables that end with the name of a constant: (page, stated value, name)."""
    found = []
    for page in PAGES:
        for line in prose_of(page).splitlines():
            cells = [cell.strip() for cell in line.strip("| ").split("|")]
            name = re.fullmatch(r"`(\w+\.[A-Z_]+)`", cells[-1])
            if name and len(cells) > 2:
                found.append((page.name, cells[-2], name[1]))
    return found


@pytest.mark.parametrize(("page", "stated", "name"), numbers())
def test_numbers_are_those_of_the_code(page, stated, name):
    module, constant = name.split(".")
    value = getattr(MODULES[module], constant)
    number, _, unit = stated.partition(" ")
    scale = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "s": 1}
    assert float(number.replace(",", "")) * scale.get(unit, 1) == value


def test_offsets_are_those_of_the_code():
    page = (ROOT / "docs/format.md").read_text()
    rows = re.findall(r"^\| (\d+) \| .* \| `(\w+_(?:WORD|FIELD))` \|$", page, re.MULTILINE)
    words = {name for name in vars(layout) if re.fullmatch(r"\w+_(WORD|FIELD)", name)}
    assert {name for _, name in rows} == words
    for offset, name in rows:
        assert int(offset) == getattr(layout, name) * layout.WORD_BYTES


def test_pages_do_not_tell_where_they_were_written():
    for page in PAGES:
        assert not re.search(r"/(?:home|work|root|tmp)/", page.read_text()), page
