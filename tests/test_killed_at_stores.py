"""Writers killed before their stores; ``scripts/torture --only stores`` kills at all of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shmstore.engine import load_native
from torture import stores
from torture.building import SHIPPED, compiler, has, package

DEMANDED = os.environ.get("SHMSTORE_ENGINE")
NATIVE = ("native", "stack")
LEAST = {
    "native": {
        "stores at which the writer was killed": 190,
        "stores at which a takeover was killed": 40,
        "states checked": 250,
    },
    "pure": {
        "stores at which the writer was killed": 95,
        "stores at which a takeover was killed": 15,
        "states checked": 120,
    },
    "stack": {"whole-stack kills": 20, "states checked": 24},
}


@pytest.fixture(
    params=[
        part for part in stores.PARTS if not DEMANDED or (part == "pure") == (DEMANDED == "pure")
    ]
)
def part(request: pytest.FixtureRequest) -> str:
    if request.param != "pure" and not has(compiler()):
        pytest.skip("the native engine cannot be compiled here")
    return request.param


def test_a_killed_writer_leaves_all_or_nothing(part: str) -> None:
    report = stores.finish(stores.start(part, 0, 4, "--short"))
    assert report.findings == []
    for what, least in LEAST[part].items():
        assert report.counts[what] >= least, what


@pytest.mark.skipif(not has(compiler()), reason="the native engine cannot be compiled here")
def test_what_is_shipped_counts_no_stores() -> None:
    killable = package("killable", (*SHIPPED, stores.KILLABLE))
    compiled = [*killable.glob("shmstore/*.so")]
    assert compiled
    assert all(b"SHMSTORE_STORE_BUDGET" in path.read_bytes() for path in compiled)
    shipped = load_native().__file__
    assert shipped is not None
    assert b"SHMSTORE_STORE_BUDGET" not in Path(shipped).read_bytes()
