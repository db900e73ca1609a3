"""The optimised native build under ptrace, one instruction at a time.

Writers follow each other on one segment. Each is stepped through its takeover and through
operations chosen by chance, until it is killed for good between two instructions. At each distinct
state of the segment on the way readers look at it, and a copy is taken over and checked.
"""

from __future__ import annotations

import random
import traceback
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from ..building import SHIPPED, package
from ..tracing import Refused, code_of, one_processor
from ..trial import Budget, Report
from .judge import (
    OPERATIONS_THAT,
    SECOND_KILLS,
    STATES,
    STATES_PURE,
    STATES_UNDONE,
    Broken,
    Judge,
)
from .life import Doom, Life, Memory
from .scene import KINDS, Choice, Turn

LEAST = 1_000_000
FINDINGS_MAX = 5
TURNS_MAX = 12
"""Operations of one writer."""
STEPPED = "instructions of the engine stepped"
COUNTED = (
    STEPPED,
    STATES,
    STATES_UNDONE,
    SECOND_KILLS,
    STATES_PURE,
    "segments",
    "operations stepped",
    *OPERATIONS_THAT,
    "takeovers stepped",
    "writers killed for good",
    "of these, in their takeover",
)
SAY_EVERY = 100_000


def run(budget: Budget, least: int = LEAST) -> Report:
    """Step through at least so many instructions of the engine."""
    report = Report()
    try:
        step(shipped(), budget, report, least)
    except Refused as refused:
        report.findings.append(f"nothing could be stepped on this machine: {refused}")
    return report


def step(native: ModuleType, budget: Budget, report: Report, least: int) -> None:
    """As ``run``, with a native engine that is loaded. Errors: ``Refused``, where no process can
    be traced."""
    code = code_of(Path(str(native.__file__)))
    for name in COUNTED:
        report.add(name, 0)
    said = 0
    with one_processor():
        while _goes_on(budget, report, least):
            _segment(native, code, budget, report, least)
            if report.counts[STEPPED] - said >= SAY_EVERY:
                said = int(report.counts[STEPPED])
                budget.say(f"{said:,} instructions, {len(report.findings)} findings")


def _goes_on(budget: Budget, report: Report, least: int) -> bool:
    more = report.counts.get(STEPPED, 0) < least or budget.left() > 0
    return more and len(report.findings) < FINDINGS_MAX


def shipped() -> ModuleType:
    """Return the native engine, compiled as it is for users."""
    (path,) = (package("shipped", SHIPPED) / "shmstore").glob("_native*.so")
    loader = ExtensionFileLoader("shmstore._native", str(path))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    native = module_from_spec(spec)
    loader.exec_module(native)
    return native


def _segment(native: ModuleType, code: range, budget: Budget, report: Report, least: int) -> None:
    """Let some writers follow each other on one segment."""
    rng = budget.rng
    fill, capacity, choice, share = KINDS[int(report.counts["segments"]) % len(KINDS)]
    memory = Memory(native, capacity, fill, rng)
    judge = Judge(memory.fd, native, report, rng)
    report.add("segments")
    try:
        for number in range(rng.randrange(2, 5)):
            whole = rng.random() < share
            turns = _turns(rng, choice, number)
            doom = _doom(rng, whole, least)
            life = Life(native, memory, code, turns, whole)
            try:
                if life.watch(judge, doom):
                    report.add("writers killed for good")
                    report.add("of these, in their takeover", not life.operations)
            except Refused:
                raise
            except Exception as error:
                what = error if isinstance(error, Broken) else traceback.format_exc()
                report.findings.append(
                    f"seed {budget.seed}, segment {report.counts['segments']} ({fill.__name__}), "
                    f"writer {number}, {life}: {what}"
                )
            finally:
                report.add(STEPPED, life.inside)
                report.add("operations stepped", life.operations)
                report.add("takeovers stepped", whole)
                life.end()
            if report.findings or not _goes_on(budget, report, least):
                return
    finally:
        judge.close()
        memory.close()


def _turns(rng: random.Random, choice: Choice, writer: int) -> list[Turn]:
    operations = rng.choices(*zip(*choice, strict=True), k=TURNS_MAX)
    first = writer * TURNS_MAX + 1
    return [
        Turn(operation, rng.getrandbits(32), number)
        for number, operation in enumerate(operations, first)
    ]


def _doom(rng: random.Random, whole: bool, most: int) -> Doom:
    chance = rng.random()
    if whole and chance < 0.5:
        return Doom(most, states=rng.randrange(1, 20), delay=rng.randrange(3000))
    if chance < 0.8:
        return Doom(most, undone=rng.randrange(1, 16), delay=rng.randrange(5))
    return Doom(min(most, rng.randrange(150_000)))
