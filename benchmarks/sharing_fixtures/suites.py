"""The suites that are measured: a ``conftest.py`` with the fixtures, and tests that use them all.

There are two tests for each worker, which is what pytest-xdist hands out first: every worker runs
both, and needs every fixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .ways import FixtureBodies, Way

TESTS_OF_A_WORKER = 2
CONFTEST = """\
from benchmarks.sharing_fixtures import bodies
from benchmarks.sharing_fixtures.probe import computed
"""
TESTS = """\
import pytest

from benchmarks.sharing_fixtures import bodies
from benchmarks.sharing_fixtures.probe import in_hand


@pytest.mark.parametrize("turn", range({tests}))
def test_use({arguments}):
    in_hand()
    {check}
"""


@dataclass(frozen=True)
class Sizes:
    """How large the suites are."""

    seconds: float = 1.0
    records: int = 250_000
    array_bytes: int = 50_000_000
    fixtures: int = 1_000


@dataclass(frozen=True)
class Workload:
    """What the suites of one workload have in common."""

    name: str
    fixtures: FixtureBodies
    check: str
    """What a test does with its values."""
    records: int = 1
    value: str = ""
    """How many of what, as the results say it."""
    needs: str = ""
    """What the suite imports before its tests run."""


def workloads(sizes: Sizes) -> list[Workload]:
    """Return all workloads, in the order in which they are measured."""
    seconds, count, size = sizes.seconds, sizes.records, sizes.array_bytes
    service, megabytes = "bodies.check_service(service)", f"{size / 1e6:g} MB"
    many = [f"small_{number}" for number in range(sizes.fixtures)]
    return [
        Workload("nothing shared", {}, "pass", 0, "none"),
        *(
            Workload(
                name,
                {"service": body("service", f"bodies.{name}", seconds)},
                service,
                value=f"{seconds:g} s",
            )
            for name in ("computing", "waiting")
        ),
        *(
            Workload(
                name,
                {"catalogue": body("catalogue", "bodies.records", count)},
                f"bodies.{check}(catalogue, {count})",
                count,
                "200 B",
            )
            for name, check in (("records", "check_some"), ("records, all read", "check_all"))
        ),
        Workload(
            "array",
            {"array": body("array", "bodies.array", size)},
            f"bodies.check_array(array, {size})",
            value=megabytes,
            needs="import numpy\n",
        ),
        Workload(
            "many fixtures",
            {name: body(name, "bodies.small", number) for number, name in enumerate(many)},
            f"bodies.check_small([{', '.join(many)}])",
            len(many),
            "small",
        ),
    ]


def body(name: str, make: str, argument: float) -> str:
    """Return the expression that computes a fixture and notes when it is done."""
    return f'computed("{name}", {make}, {argument!r})'


def write(folder: Path, workload: Workload, way: Way, workers: int) -> None:
    """Write the files of a suite."""
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "conftest.py").write_text(CONFTEST + workload.needs + way.conftest(workload.fixtures))
    text = TESTS.format(
        tests=TESTS_OF_A_WORKER * workers,
        arguments=", ".join(["turn", *workload.fixtures]),
        check=workload.check,
    )
    (folder / "test_use.py").write_text(text)
