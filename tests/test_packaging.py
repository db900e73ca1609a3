"""What is shipped: all of the package, the demo's records, the command, and nothing by accident."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import shmstore

ROOT = Path(__file__).parent.parent
BUILD = "from setuptools import build_meta as b; b.build_{kind}('dist')"


@pytest.fixture(scope="module")
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


def build(source: Path, kind: str) -> Path:
    """Build a distribution with the setuptools of this environment."""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD.format(kind=kind)],
        cwd=source,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (built,) = (source / "dist").glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(source) -> Path:
    return build(source, "wheel")


@pytest.fixture(scope="module")
def sdist(source) -> Path:
    return build(source, "sdist")


def test_the_wheel_has_every_module_and_the_type_marker(source, wheel):
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if name.startswith("shmstore/")}
    modules = {str(path.relative_to(source)) for path in (source / "shmstore").rglob("*.py")}
    assert shipped == modules | {"shmstore/py.typed"}


def test_the_wheel_says_which_python_it_is_for(wheel):
    assert "-py310-" in wheel.name


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
            *("[console_scripts]", "shmstore", "=", "shmstore.cli:main")
        ]
        assert "LICENSE" in read
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.10"
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra" not in line]
    assert [line.partition(">=")[0] for line in required] == ["msgpack", "multiprocess"]


def test_an_installed_wheel_finds_its_records(wheel, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command = [*pip, "--ignore-installed", "--no-warn-script-location"]
    subprocess.run([*command, "--prefix", str(tmp_path), str(wheel)], check=True)
    (package,) = tmp_path.rglob("shmstore/__init__.py")
    ran = subprocess.run(
        [sys.executable, "-c", "from shmstore.demo import sample; print(sample.find_sample())"],
        env={"PYTHONPATH": str(package.parent.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(ran.stdout.strip()).resolve().is_relative_to(tmp_path)


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
