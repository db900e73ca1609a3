"""The trial: every set of processes in every order, then moments chosen by chance."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, permutations

from ..trial import Budget, Report
from .scene import ROLES, SERVANTS, WAYS, Broken, Scene

SECONDS_MAX = 2.0
"""Within this time everything has to be gone."""
MOMENTS_LEAST = 60
RESTARTS = 4
"""Not so many that there are pauses between them."""
SIZES = range(1, len(ROLES) + 1)
ORDERS = tuple(order for size in SIZES for order in permutations(ROLES, size))
SETS = tuple(roles for size in SIZES for roles in combinations(ROLES, size))
MOMENTS: dict[str, tuple[tuple[str, ...], float]] = {
    "start": ((), 0.3),
    "restart": (("restart",), 0.03),
    "takeover": (("load", "restart"), 0.05),
    "growth": (("grow",), 0.05),
    "close": (("close",), 0.03),
}
"""What the starter is told, the last of it when it happens; and the latest time after that."""
SERVERS = "servers"
LEFT = "servers that left anything behind"
SOCKETS = "socket files that nobody was left to remove, and the next start replaced"
SLOWEST = "milliseconds until all was gone, at most"
COUNTED = {
    "kill": "sets of processes killed, each set in every order",
    "terminate": "sets of processes that got SIGTERM",
    "stop": "sets of processes that were stopped while all others were killed",
}


def run(budget: Budget) -> Report:
    """Kill every set in every order once, stop and end every set once; then go on by chance."""
    return play(budget, ORDERS, SETS, MOMENTS_LEAST, SECONDS_MAX)


def play(
    budget: Budget,
    orders: Iterable[Sequence[str]],
    sets: Iterable[Sequence[str]],
    moments: int,
    patience: float,
) -> Report:
    """Play these, and so many moments; what has to go has ``patience`` seconds.

    Each scene has a server of the same name, so it sees that the one before left nothing in its
    way. The last one sees that its starter collects nothing over some restarts.
    """
    stage = _Stage(budget, patience)
    try:
        for order in orders:
            stage.play("kill", order)
        for roles in sets:
            for way in ("terminate", "stop"):
                stage.play(way, budget.rng.sample(roles, len(roles)))
        while moments > 0 or budget.left() > 0:
            moments -= 1
            stage.play_moment(budget.rng.choice(list(MOMENTS)))
        stage.play_restarts()
    finally:
        shutil.rmtree(stage.directory, ignore_errors=True)
    return stage.report


class _Stage:
    """Where one scene after the other is played, and what came of them."""

    def __init__(self, budget: Budget, patience: float) -> None:
        self.directory = tempfile.mkdtemp(prefix="shm-")
        self.report = Report({SERVERS: 0, LEFT: 0, SOCKETS: 0, SLOWEST: 0})
        self._budget = budget
        self._patience = patience

    def play(self, way: str, roles: Sequence[str]) -> None:
        """Strike these, in this order, while everybody is at work."""
        one_by_one = self._chance()
        killed = set(ROLES) - set(roles) if way == "stop" else set(roles)
        doomed = way == "stop" or "starter" in roles
        excused = not SERVANTS - killed - ({"starter"} if doomed else set())

        def blow(scene: Scene) -> None:
            scene.open()
            scene.begin()
            scene.strike(roles, way, one_by_one)
            scene.judge(doomed, excused, self._chance())

        self._play(f"{way} {_pace(one_by_one)} {', '.join(roles)}", blow)
        self.report.add(COUNTED[way])

    def play_restarts(self) -> None:
        """Kill the writer some times, then end all."""

        def blow(scene: Scene) -> None:
            scene.open()
            scene.begin()
            scene.restart(RESTARTS)
            scene.judge(False, False, True)

        self._play(f"{RESTARTS} restarts", blow)

    def play_moment(self, moment: str) -> None:
        """Strike any of those who are there, a moment after the starter began with something."""
        rng = self._budget.rng
        orders, latest = MOMENTS[moment]
        delay, way, one_by_one = latest * rng.random(), rng.choice(list(WAYS)), self._chance()

        def blow(scene: Scene) -> None:
            scene.open()
            if orders:
                scene.begin()
            for order in orders:
                scene.order(order, until_done=order != orders[-1])
            scene.pass_time(delay)
            there = scene.who()
            if way == "stop":
                there = [role for role in there if scene.can_be_stopped(role)]
            roles = rng.sample(there, rng.randint(1, len(there)))
            scene.strike(roles, way, one_by_one)
            scene.judge(way == "stop" or "starter" in roles, True, self._chance())

        after = f"{1000 * delay:.1f} ms after the beginning of a {moment}"
        self._play(f"{way} {_pace(one_by_one)}, {after}", blow)
        self.report.add("moments at which some were struck, by chance")

    def _play(self, title: str, blow: Callable[[Scene], None]) -> None:
        counts = self.report.counts
        scene = Scene(self.directory, self._patience)
        try:
            blow(scene)
        except Broken as error:
            number = int(counts[SERVERS])
            self.report.findings.append(
                f"scene {number} of seed {self._budget.seed}: {title}: {error}"
            )
            self.report.add(LEFT)
        finally:
            scene.close()
        self.report.add(SERVERS)
        self.report.add(SOCKETS, scene.kept_socket)
        counts[SLOWEST] = max(counts[SLOWEST], round(1000 * scene.slowest))

    def _chance(self) -> bool:
        return self._budget.rng.random() < 0.5


def _pace(one_by_one: bool) -> str:
    return "one by one" if one_by_one else "at once"
