"""Many mutations at a time: pipelines send without waiting, transactions apply all or none.

Both stand in for a client under tables and stores; mutations of such a table return a Reply.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from ..engine import Reader
from ..errors import RequestTimeout, ShmstoreError
from ..keys import Key
from .handles import Answer, Link, converted
from .table import Table

OTHERS_MAX = 10
"""How many further errors of one pipeline are reported next to the first."""
LATE_SECONDS = 0.001
"""How long a pipeline waits for an answer when it has run into the timeout before."""

Self = TypeVar("Self", bound="Deferred")


class Reply:
    """The result of a mutation that was sent, or collected, without waiting for it."""

    __slots__ = ("_convert", "_fetch")

    def __init__(self, fetch: Callable[[], Any], convert: Callable[[Any], Any]) -> None:
        self._fetch = fetch
        self._convert = convert

    def result(self) -> Any:
        """Return what the mutation would have returned on the client's own table.

        In a pipeline it waits for the answer if need be; in a transaction it is there once the
        block has ended well. Raises the error of the mutation. Each call returns fresh objects.
        """
        return converted(self._fetch(), self._convert)


class Deferred:
    """What pipelines and transactions have in common: used once, in a ``with`` block."""

    _what = "deferred"

    def __init__(self, client: Link) -> None:
        self.client = client
        self._state = "not begun"

    def table(self, name: str) -> Table:
        """Return the table of this name, bound to this block: its mutations return a Reply."""
        return Table(self, name)

    def __enter__(self: Self) -> Self:
        if self._state != "not begun":
            raise ShmstoreError(
                f"this {self._what} was entered before; make a new one for each block, they "
                f"cannot be nested or used twice"
            )
        self._state = "open"
        return self

    def call(self, operation: str, arguments: list[Any], convert: Callable[[Any], Any]) -> Any:
        raise NotImplementedError

    @property
    def reader(self) -> Reader:
        self._refuse_to_read()

    def read(self, method: str, *arguments: Any) -> NoReturn:
        self._refuse_to_read()

    def wait_changed(self, arguments: list[Any], timeout: float | None) -> NoReturn:
        self._refuse_to_read()

    def view(self, table: str, namespace: str, key: Key, version: int) -> NoReturn:
        self._refuse_to_read()

    def holder(self) -> bytes:
        return self.client.holder()

    def pipeline(self) -> NoReturn:
        """Refuse: blocks do not nest."""
        self._refuse_to_nest("pipeline")

    def transaction(self) -> NoReturn:
        """Refuse: blocks do not nest."""
        self._refuse_to_nest("transaction")

    def __reduce__(self) -> NoReturn:
        raise ShmstoreError(f"a {self._what} cannot be pickled; pickle the client instead")

    def _check_open(self) -> None:
        if self._state != "open":
            raise ShmstoreError(f"this {self._what} is {self._state}; use it inside its with block")

    def _refuse_to_read(self) -> NoReturn:
        raise ShmstoreError(
            f"a table or store of a {self._what} takes mutations only; read from the client's own "
            f"table or store"
        )

    def _refuse_to_nest(self, other: str) -> NoReturn:
        raise ShmstoreError(
            f"a {other} cannot be started inside a {self._what}; start it from the client"
        )


class Pipeline(Deferred):
    """Sends mutations as they are made and waits for all of them when the block ends.

    They are applied in the order in which they were made, each for itself; of many, some wait a
    few milliseconds to be sent together. An exception in the block does not take back what was
    sent. When the block ends the first error among the answers is raised; the messages of up to
    ten others are in its ``details["others"]``. Any process may use one; a pipeline belongs to one
    thread.
    """

    _what = "pipeline"

    def __init__(self, client: Link) -> None:
        super().__init__(client)
        self._pending: deque[tuple[Answer, Reply]] = deque()
        self._failures: list[ShmstoreError] = []
        self._late = False

    def call(self, operation: str, arguments: list[Any], convert: Callable[[Any], Any]) -> Any:
        """Send one operation; return its Reply."""
        if self._state != "open":
            self._check_open()
        answer = self.client.submit(operation, arguments)
        reply = Reply(answer.result, convert)
        pending = self._pending
        pending.append((answer, reply))
        while pending and pending[0][0].done():
            self._collect()
        return reply

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._state = "closed"
        self._late = isinstance(error, RequestTimeout)
        if error is None or isinstance(error, Exception):
            while self._pending:
                self._collect()
        if self._failures and error is None:
            raise self._first_failure()

    def _collect(self) -> None:
        answer, reply = self._pending.popleft()
        try:
            if self._late:
                # All were sent before the first wait began: one timeout is for them together.
                answer.result(LATE_SECONDS)
            reply.result()
        except ShmstoreError as failure:
            self._late = self._late or isinstance(failure, RequestTimeout)
            if len(self._failures) <= OTHERS_MAX:
                self._failures.append(failure)

    def _first_failure(self) -> ShmstoreError:
        first, *others = self._failures
        if others:
            first.details["others"] = [str(other) for other in others]
        return first


class Transaction(Deferred):
    """Collects mutations over any tables and stores; applies all of them at once, or none.

    They are sent in one request when the block ends, and become visible together. An exception
    in the block sends nothing; an empty block sends nothing. An error of one mutation undoes all
    and names its position. What merely finds nothing (``del`` or ``pop`` of a missing key) is no
    such error: it shows when its Reply is asked.
    """

    _what = "transaction"

    def __init__(self, client: Link) -> None:
        super().__init__(client)
        self._operations: list[list[Any]] = []
        self._results: list[Any] | None = None

    def call(self, operation: str, arguments: list[Any], convert: Callable[[Any], Any]) -> Any:
        """Note one operation; return its Reply."""
        self._check_open()
        self._operations.append([operation, arguments])
        return Reply(partial(self._result, len(self._operations) - 1), convert)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        operations, self._operations = self._operations, []
        if error is not None:
            self._state = "abandoned"
            return
        self._state = "failed"
        if operations:
            results_of = partial(_results_of, len(operations))
            self._results = self.client.call("transaction", operations, results_of)
        else:
            self._results = []
        self._state = "closed"

    def _result(self, position: int) -> Any:
        if self._results is None:
            raise ShmstoreError(
                "nothing was applied yet: results are there when the with block has ended"
                if self._state == "open"
                else f"nothing was applied: the transaction was {self._state}"
            )
        return self._results[position]


def _results_of(count: int, answer: Any) -> list[Any]:
    results = list(answer)
    if len(results) != count:
        raise ValueError
    return results
