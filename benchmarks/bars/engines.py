"""The two engines side by side: one server, a reader process of each."""

from __future__ import annotations

from statistics import median

from .. import rivals
from ..arena import Arena
from ..processes import TaskFailed
from ..records import Dataset
from ..workloads.operations import time_calls

ENGINES = ("pure", "native")
SMALL = 1_000


def engines(rounds: int, seconds: float) -> dict[str, float]:
    """Measure get_bytes of hot keys by both engines; what is not built here is left out."""
    dataset = Dataset(SMALL)
    taken: dict[str, list[float]] = {}
    with Arena(rivals.OURS, dataset) as arena:
        arena.load()
        workers = {name: arena.another({"SHMSTORE_ENGINE": name}) for name in ENGINES}
        try:
            for _ in range(rounds):
                for name in list(workers):
                    try:
                        measured = workers[name].call(time_calls, "get raw", dataset, seconds, [])
                    except TaskFailed as error:
                        print(f"   no {name} engine: {str(error).strip().splitlines()[-1]}")
                        workers.pop(name).stop()
                    else:
                        taken.setdefault(name, []).append(median(measured.blocks_ns))
        finally:
            for worker in workers.values():
                worker.stop()
    return {f"{name} get_bytes": median(series) for name, series in taken.items()}
