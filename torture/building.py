"""The C of shmstore, compiled for trials: with other flags, or into other programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import get_native_id

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "shmstore" / "native"
OWN = ROOT / "torture" / "native"
BUILD = ROOT / "build" / "torture"
DEBUG = ("-std=c11", "-O1", "-g", "-D_GNU_SOURCE", "-fno-omit-frame-pointer")
SHIPPED = ("-std=c11", "-O3", "-fvisibility=hidden")
"""The flags of the extension that users get; a test compares them with pyproject.toml."""


def compiler() -> str:
    """Return the C compiler: CC, or the one that this Python was made with."""
    return os.environ.get("CC") or str(sysconfig.get_config_var("CC")).split()[0]


def compile_c(target: Path, source: Path, flags: Sequence[str], with_: str = "") -> Path:
    """Compile one C file, with shmstore's headers at hand; an error shows what the compiler said.

    Not again if nothing it could depend on is newer than what is there.
    """
    made_by = target.with_suffix(".command")
    # Several may build the same: the file appears whole. Libraries come last.
    fresh = target.with_suffix(f".{get_native_id()}")
    headers = (f"-I{NATIVE}", f"-I{OWN}")
    command = [with_ or compiler(), *flags, *headers, str(source), "-ldl", "-pthread"]
    newest = max(path.stat().st_mtime for path in (*NATIVE.iterdir(), *OWN.iterdir(), source))
    same = made_by.exists() and made_by.read_text() == repr(command)
    if same and target.exists() and target.stat().st_mtime > newest:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([*command, "-o", str(fresh)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    fresh.replace(target)
    made_by.write_text(repr(command))
    return target


def package(name: str, flags: Sequence[str], with_: str = "") -> Path:
    """Return a folder that holds shmstore with an extension compiled so, and the tests.

    To be the working directory of ``python -m`` or ``-c``, in the environment of python_in().
    """
    folder = BUILD / name
    inside = folder / "shmstore"
    inside.mkdir(parents=True, exist_ok=True)
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    include = f"-I{sysconfig.get_config_var('INCLUDEPY')}"
    compile_c(
        inside / f"_native{suffix}",
        NATIVE / "module.c",
        ("-shared", "-fPIC", include, *flags),
        with_,
    )
    for path in (ROOT / "shmstore").iterdir():
        if path.suffix != ".so" and path.name != "__pycache__":
            _link(inside / path.name, path)
    for name in ("torture", "tests"):
        _link(folder / name, ROOT / name)
    return folder


def _link(link: Path, target: Path) -> None:
    with suppress(FileExistsError):
        link.symlink_to(target)


def python_in(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a Python that takes shmstore from ``folder``, the native engine."""
    return {**os.environ, "PYTHONPATH": str(folder), "SHMSTORE_ENGINE": "native", **variables}


def has(program: str) -> bool:
    """Tell whether a program is installed."""
    return shutil.which(program) is not None
