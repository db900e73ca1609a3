"""What one process of a run does about shared fixtures; made when it meets the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ShmstoreError, StoreFull
from .body import Body
from .closing import Closing
from .conftests import know_conftests
from .ending import Ending
from .failures import raise_failure
from .identity import Instance
from .ledger import FAILED, RUNNING, VALUES, Ledger, value_key
from .obtaining import Computed, Obtaining
from .run import Run
from .values import Loaded, Options, Staged, fetch, stage

if TYPE_CHECKING:
    import pytest


class Process:
    """Obtains values for this process, and ends them."""

    def __init__(self, run: Run, session: pytest.Session, say: Callable[[str], None]) -> None:
        settings = run.settings
        know_conftests(session.config.pluginmanager.get_plugins())
        used: set[str] = set()
        self.ledger = Ledger(run.client, run.worker)
        self.closing = Closing(self.ledger, say)
        self.ending = Ending(self.ledger, session, used, self.closing)
        self._used = used
        self._options = Options(table_bytes=settings.table_bytes, pickle=settings.pickle)
        self._obtaining = Obtaining(
            self.ledger,
            used,
            say,
            is_shared=run.is_shared,
            seconds_max=settings.timeout,
            may_pickle=settings.pickle,
        )
        self._failures: dict[tuple[str, str], int] = {}
        """Which generation of a failed fixture a test has got."""
        if run.is_shared:
            self.ledger.workers[run.worker] = RUNNING

    def obtain(self, instance: Instance, test: str, body: Body) -> Callable[[], Loaded]:
        """Return what loads the value, each time anew; raise what the fixture raised."""
        __tracebackhide__ = True
        key = instance.key
        is_known = key in self._used
        values: list[Any] = []
        options = self._options._replace(name=instance.name, as_table=instance.declaration.as_table)

        def compute(stored_as: str, finish: Callable[[Computed], None]) -> None:
            __tracebackhide__ = True
            values.append(body.call())
            closes = bool(body.finalizers or instance.declaration.release)
            with self._staged(stored_as, values[0], options) as staged:
                finish(Computed(staged.stored.size, closes, staged.publish))

        # A test that asks again for what failed is one that is run again.
        stale = self._failures.get((test, key), 0)
        try:
            result, is_here = self._obtaining.obtain(instance, test, compute, stale)
        except BaseException:
            self.ending.abandon(body)
            self._failures[test, key] = self.ledger.generation(key)
            raise
        load = partial(fetch, self.ledger.client, VALUES, value_key(key, result))
        if result["state"] == FAILED:
            self._failures[test, key] = result["generation"]
            raise_failure(result["failure"])
        elif is_here and result["closes"]:
            self.ending.own(instance, values[0], body)
        elif result["closes"] and not is_known:
            self.ending.use(instance, body)
        return load

    @contextmanager
    def _staged(self, key: str, value: Any, options: Options) -> Iterator[Staged]:
        __tracebackhide__ = True
        try:
            with stage(self.ledger.client, VALUES, key, value, options) as staged:
                yield staged
            return
        except StoreFull as full:
            error: ShmstoreError = StoreFull(
                f"{options.name} does not fit into the store of the run, "
                f"{full.message.partition('; ')[0]}; set shmstore_capacity in the configuration of "
                f"pytest to more"
            )
        except ShmstoreError as refused:
            error = refused.with_traceback(None)  # it says all; how it came to that is our affair
        raise error

    def finish(self, call_reported: Callable[[Callable[[], None]], None]) -> None:
        """End what remains when the session has ended; ``call_reported`` calls what may fail."""
        with suppress(ShmstoreError):
            self.closing.say_done()
            self.ledger.readers[self.ledger.worker] = self._obtaining.waited
            for task in self.ending.legacies():
                call_reported(task)
