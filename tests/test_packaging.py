"""What is shipped: all of the package, the demo's records, the command, and nothing by accident."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import msgpack
import pytest

import shmstore
from shmstore.pytest import shared_fixture

ROOT = Path(__file__).parent.parent
BUILD = "from setuptools import build_meta as b; b.build_{kind}('dist')"


@shared_fixture
def source(tmp_path_factory) -> Path:
    """A copy of what a build needs, so that it leaves nothing in the tree."""
    path = tmp_path_factory.mktemp("source")
    junk = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("shmstore", "benchmarks", "scripts", "tests"):
        shutil.copytree(ROOT / name, path / name, ignore=junk)
    for file in ROOT.iterdir():
        if file.is_file() and not file.name.startswith("."):
            shutil.copy(file, path)
    return path


def build(source: Path, kind: str, **environment: str) -> Path:
    """Build a distribution with the setuptools of this environment."""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD.format(kind=kind)],
        cwd=source,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (built,) = (source / "dist").glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def install(wheel: Path, prefix: Path) -> Path:
    """Install a wheel without what it requires, which is here; return where its package is."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command = [*pip, "--ignore-installed", "--no-warn-script-location"]
    subprocess.run([*command, "--prefix", str(prefix), str(wheel)], check=True)
    (package,) = prefix.rglob("shmstore/__init__.py")
    return package.parent


def run_installed(package: Path, script: str) -> list[str]:
    """Run a script with an installed package, whatever engine is asked for here; its output.

    In an environment of its own: in this one shmstore may be installed as it is edited, and what
    the package lacks would be found there.
    """
    environment = {name: text for name, text in os.environ.items() if name != "SHMSTORE_ENGINE"}
    own = package.parent.parent / "environment"
    venv.create(own, with_pip=False, symlinks=True)
    dependencies = Path(msgpack.__file__).parent.parent
    ran = subprocess.run(
        [own / "bin" / "python", "-c", script],
        env={**environment, "PYTHONPATH": f"{package.parent}{os.pathsep}{dependencies}"},
        cwd=package.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == ""
    return ran.stdout.splitlines()


def unpacked(archive: Path, path: Path) -> Path:
    subprocess.run(["tar", "-xzf", archive, "-C", path], check=True)
    (folder,) = path.iterdir()
    return folder


# Workers of a run share what is built, and may build the two wheels at the same time.


@shared_fixture
def sdist(source) -> Path:
    return build(source, "sdist")


@shared_fixture
def wheel(sdist, tmp_path_factory) -> Path:
    """The wheel as others build it: from the source archive, with a compiler if there is one."""
    return build(unpacked(sdist, tmp_path_factory.mktemp("unpacked")), "wheel")


@shared_fixture
def pure_wheel(sdist, tmp_path_factory) -> Path:
    """The wheel of a machine whose compiler cannot compile."""
    return build(unpacked(sdist, tmp_path_factory.mktemp("pure")), "wheel", CC="/bin/false")


def compiled_file() -> set[str]:
    """The file of the native engine in a wheel; nothing if it cannot be compiled here."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(compiler.split()[0]) and header.is_file():
        return {f"shmstore/_native{sysconfig.get_config_var('EXT_SUFFIX')}"}
    return set()


def shipped_modules(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith("shmstore/")}


def every_module() -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / "shmstore").rglob("*.py")}


def test_the_wheel_has_every_module_and_the_type_marker_and_the_native_engine(wheel):
    assert shipped_modules(wheel) == every_module() | {"shmstore/py.typed"} | compiled_file()


def test_the_wheel_says_which_python_it_is_for(wheel):
    assert f"-cp{sys.version_info[0]}{sys.version_info[1]}-" in wheel.name


def test_an_installed_wheel_brings_the_engine_of_its_format(wheel, tmp_path):
    if not compiled_file():
        pytest.skip("there is no C compiler, or Python's headers are missing")
    package = install(wheel, tmp_path)
    script = """
        from shmstore import _native, layout
        print(_native.NAME, _native.__file__)
        print((_native.FORMAT_VERSION, _native.LAYOUT_DIGEST))
        print((layout.FORMAT_VERSION, layout.digest()))
    """
    name, built, written = run_installed(package, textwrap.dedent(script))
    assert name.startswith("native ")
    assert Path(name.partition(" ")[2]).parent == package
    assert built == written


def test_without_a_compiler_the_pure_engine_is_installed_and_works(pure_wheel, tmp_path):
    assert shipped_modules(pure_wheel) == every_module() | {"shmstore/py.typed"}
    script = """
        import shmstore.engine
        with shmstore.start(capacity="1MiB") as server:
            table = server.table("users")
            table["ada"] = {"born": 1815}
            print(table["ada"])
        print(shmstore.engine.NAME)
        print(shmstore.engine.WHY_PURE)
    """
    record, engine, why = run_installed(install(pure_wheel, tmp_path), textwrap.dedent(script))
    assert (record, engine) == ("{'born': 1815}", "pure")
    assert "No module named 'shmstore._native'" in why
    assert "install a C compiler and Python's headers" in why


def test_every_header_is_listed():
    listed = re.findall(r'"(shmstore/native/\w+\.h)"', (ROOT / "pyproject.toml").read_text())
    headers = (ROOT / "shmstore/native").glob("*.h")
    assert listed == sorted(str(path.relative_to(ROOT)) for path in headers)


def test_the_wheel_brings_the_records_of_the_demo(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("packages.jsonl"))
        assert "share/shmstore/" in name
        assert archive.read(name) == (ROOT / "benchmarks/data/packages.jsonl").read_bytes()


def test_the_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        read = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(read["METADATA"]).decode())
        assert archive.read(read["entry_points.txt"]).decode().split() == [
            *("[console_scripts]", "shmstore", "=", "shmstore.cli:main"),
            *("[pytest11]", "shmstore", "=", "shmstore.pytest.plugin"),
        ]
        assert "LICENSE" in read
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.10"
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra" not in line]
    assert [line.partition(">=")[0] for line in required] == ["msgpack", "multiprocess"]


def test_an_installed_wheel_finds_its_records(pure_wheel, tmp_path):
    package = install(pure_wheel, tmp_path)
    script = "from shmstore.demo import sample; print(sample.find_sample())"
    (found,) = run_installed(package, script)
    assert Path(found).resolve().is_relative_to(tmp_path)


def test_the_source_archive_names_nobody_who_built_it(sdist):
    with tarfile.open(sdist) as archive:
        assert {(member.uname, member.gname) for member in archive} == {("root", "root")}
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("setup.cfg", "LICENSE", "scripts/env.sh", "scripts/test", "tests/conftest.py"):
        assert needed in names
    assert not [name for name in names if name.endswith((".pyc", ".so"))]


def test_every_public_name_has_a_docstring_that_is_a_sentence():
    for name in shmstore.__all__:
        documentation = getattr(shmstore, name).__doc__
        assert documentation, name
        assert documentation.split("\n")[0].rstrip().endswith((".", ":")), name
