"""What the stepped writers do: segments of different make, and operations chosen by chance.

An operation does the same to equal segments, whichever engine owns them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shmstore.codec import pack
from shmstore.layout import RESERVE_DIVISOR, SEGMENT_USED_MAX
from shmstore.protocol import CLIENT_ID_BYTES, build_request, parse_request
from shmstore.writer.batch import Batch
from shmstore.writer.operations import Operations
from shmstore.writer.sessions import Session, Sessions

MIB = 1 << 20
LISTS_MAX = 8
"""Lists of a segment that was just filled, each with a word of its own."""
STORE = ("s", "global")
INDEXES = (b"\x92status\x01", b"\x92status\x02", b"\x92region")
PLACES = (("t", ""), ("u", ""), STORE, ("p", ""), ("", ""), ("", "s"))
"""All that has records; "p" is what requests change, the last two are the system's own."""
LARGE = ("large", "")
"""Its values are nearly all zeros, and so large that they are not looked at."""


class Client:
    """Who is answered; the answers are in its session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def deliver(self, answer: bytes) -> None:
        """Take an answer."""


class Desk:
    """A writer at work: its owner, and what serves requests by it."""

    def __init__(self, owner: Any, bare: Any) -> None:
        """``bare`` is the owner for what is not worth being stepped."""
        self.owner, self.bare = owner, bare
        self.turn = 0
        """A number that grows with each operation on the segment."""
        sessions = Sessions(owner, lambda: 0.0)
        self._batch = Batch(owner, Operations(owner), sessions)
        self._client = Client(sessions.attach(b"c" * CLIENT_ID_BYTES))

    def serve(self, requests: list[tuple[str, list[Any]]]) -> None:
        """Do what the loop does with the requests of one client."""
        waiting: deque[bytes | bytearray] = deque()
        # The client has all answers to what came before: whichever were kept, they are forgotten.
        oldest = self.turn * 100 + 1
        for number, (operation, arguments) in enumerate(requests):
            waiting.append(build_request(oldest + number, oldest, operation, arguments))
        if len(waiting) == 1 and self._batch.run(self._client, waiting[0]):
            return
        while waiting:
            self._batch.add_plain(self._client, waiting, 50)
            if waiting:
                self._batch.add(self._client, parse_request(waiting.popleft()))
        self._batch.commit()


Operation = Callable[[Desk, random.Random], None]


@dataclass(frozen=True)
class Turn:
    """An operation that somebody is about to do."""

    operation: Operation
    seed: int
    number: int

    def play(self, desk: Desk) -> None:
        """Do it."""
        desk.turn = self.number
        self.operation(desk, random.Random(self.seed))


def _value(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 5, 30, rng.randrange(250))))


def _put(owner: Any, rng: random.Random) -> None:
    key = f"k{rng.randrange(24)}"
    owner.put("t", "", rng.choice((key, key.encode())), _value(rng))


def _remove(owner: Any, rng: random.Random) -> None:
    items = owner.chunk("t", "", b"", None, None, False)
    owner.remove("t", "", rng.choice(items)[0] if items else "absent")


def _lists_of(owner: Any, key: str) -> tuple[bytes, ...]:
    return tuple(
        index
        for index in INDEXES
        if key in {item[0] for item in owner.chunk(*STORE, index, None, None, False)}
    )


def _put_to_store(owner: Any, rng: random.Random) -> None:
    key, new = f"id{rng.randrange(14)}", tuple(rng.sample(INDEXES, rng.randrange(3)))
    owner.put(*STORE, key, _value(rng), rng.randrange(7), _lists_of(owner, key), new)


def _remove_from_store(owner: Any, rng: random.Random) -> None:
    key = f"id{rng.randrange(14)}"
    owner.remove(*STORE, key, _lists_of(owner, key), ghost=rng.random() < 0.7)


def _reindex(owner: Any, rng: random.Random) -> None:
    key = f"id{rng.randrange(14)}"
    if owner.find(*STORE, key):
        owner.reindex(*STORE, key, _lists_of(owner, key), rng.sample(INDEXES, 2))


CHANGES = (_put, _put, _remove, _put_to_store, _remove_from_store, _reindex)


def change(desk: Desk, rng: random.Random) -> None:
    rng.choice(CHANGES)(desk.owner, rng)
    desk.owner.commit()


def change_together(desk: Desk, rng: random.Random) -> None:
    for _ in range(rng.randrange(2, 7)):
        rng.choice(CHANGES)(desk.owner, rng)
    desk.owner.commit()


def drop_a_batch(desk: Desk, rng: random.Random) -> None:
    for _ in range(2):
        rng.choice(CHANGES)(desk.owner, rng)
    desk.owner.abort()


def put_larger(desk: Desk, rng: random.Random) -> None:
    desk.owner.put("t", "", "k0", rng.randbytes(rng.randrange(1000, 6000)))
    desk.owner.commit()


def clear(desk: Desk, rng: random.Random) -> None:
    place = rng.choice((("t", ""), ("u", ""), STORE))
    desk.owner.clear(*place, INDEXES if place == STORE else ())
    desk.owner.commit()


def put_many_new(desk: Desk, rng: random.Random) -> None:
    for _ in range(rng.randrange(2, 7)):
        desk.owner.put("u", "", f"g{rng.randrange(60)}", b"")
    desk.owner.commit()


def thin_out(desk: Desk, rng: random.Random) -> None:
    for key, *_ in desk.bare.chunk("u", "", b"", None, None, False)[::3]:
        desk.owner.remove("u", "", key)
    desk.owner.commit()


def settle(desk: Desk, rng: random.Random) -> None:
    desk.owner.settle()


def _plain_request(rng: random.Random) -> tuple[str, list[Any]]:
    keys = [f"k{rng.randrange(9)}" for _ in range(3)]
    value = pack({"n": rng.randrange(9), "text": "x" * rng.randrange(99)})
    return rng.choice(
        (
            ("put", ["p", "", keys[0], value]),
            ("insert", ["p", "", keys[0], value]),
            ("put_many", ["p", "", [[key, value] for key in keys]]),
            ("delete", ["p", "", keys[0]]),
        )
    )


def serve_one(desk: Desk, rng: random.Random) -> None:
    desk.serve([_plain_request(rng)])


def serve_many(desk: Desk, rng: random.Random) -> None:
    desk.serve([_plain_request(rng) for _ in range(rng.randrange(2, 6))])


def serve_others(desk: Desk, rng: random.Random) -> None:
    key, amount = f"n{rng.randrange(3)}", rng.randrange(1, 9)
    increment = ("increment", ["p", "", key, None, amount, 0, None, None, False])
    requests: list[tuple[str, list[Any]]] = [
        increment,
        ("transaction", [increment, _plain_request(rng), ("delete", ["p", "", "k1"])]),
        ("clear", ["p", ""]),
    ]
    desk.serve([rng.choice(requests)])


def wear(desk: Desk, rng: random.Random) -> None:
    """Give up so many blocks that whatever follows takes from the quarantine, and purges."""
    for number in range(300):
        desk.bare.put("t", "", f"k{number % 12}", bytes(rng.randrange(300, 600)))
        if number % 7 == 0:
            desk.bare.remove("t", "", f"k{rng.randrange(24)}")
        desk.bare.commit()


def _zeros(size: int) -> bytes:
    """What is not zero at its end shows where the next free memory begins."""
    return bytes(size - 1) + b"!"


def extend(desk: Desk, rng: random.Random) -> None:
    """Put what the first extent has no room for, once or twice."""
    desk.owner.put(*LARGE, f"z{rng.randrange(3)}", _zeros(rng.randrange(6_000, 9_000)))
    desk.owner.commit()


def give_back(desk: Desk, rng: random.Random) -> None:
    """Delete so much that extents go back to the system when that leaves the quarantine."""
    desk.bare.put(*LARGE, "huge", _zeros(9 * MIB))
    desk.bare.commit()
    desk.bare.remove(*LARGE, "huge")
    desk.bare.commit()
    while desk.owner.settle():
        pass


Choice = tuple[tuple[Operation, int], ...]
USUAL: Choice = (
    (change, 8),
    (change_together, 8),
    (drop_a_batch, 2),
    (put_larger, 1),
    (clear, 1),
    (put_many_new, 2),
    (thin_out, 2),
    (settle, 2),
    (serve_one, 6),
    (serve_many, 4),
    (serve_others, 2),
    (wear, 3),
)
CROWDED: Choice = (*USUAL, (put_many_new, 12), (thin_out, 3))
ROOMY: Choice = (*USUAL, (extend, 12), (give_back, 6))
"""Operations, and how often each is chosen."""


def fill(owner: Any, rng: random.Random) -> None:
    """Put records, and delete some of them."""
    for _ in range(40):
        rng.choice((_put, _put_to_store))(owner, rng)
    owner.commit()
    for _ in range(12):
        rng.choice((_remove, _remove_from_store))(owner, rng)
    owner.commit()


def crowd(owner: Any, rng: random.Random) -> None:
    """Fill the index with words of deleted records: few more, and its segment is split."""
    fill(owner, rng)
    used = owner.reader.info()["insertions"] + LISTS_MAX
    _come_and_go(owner, SEGMENT_USED_MAX - used)


def deepen(owner: Any, rng: random.Random) -> None:
    """Fill the root of an order list: few more, and it is split. Vacate words of the index."""
    fill(owner, rng)
    for number in range(62):
        owner.put("u", "", f"d{number}", b"")
    _come_and_go(owner, 300)
    while owner.settle():
        pass


def _come_and_go(owner: Any, count: int) -> None:
    for number in range(count):
        owner.put("t", "", f"x{number}", b"")
    owner.commit()
    for number in range(count):
        owner.remove("t", "", f"x{number}")
    owner.commit()


def roomy(owner: Any, rng: random.Random) -> None:
    """Use most of the first extent, up to the reserve and a little more."""
    fill(owner, rng)
    free = owner.statistics()["free"] - owner.reader.capacity // RESERVE_DIVISOR
    owner.put(*LARGE, "most", _zeros(free - 6_000))
    owner.commit()


KINDS = (
    (fill, MIB, USUAL, 0.35),
    (crowd, MIB, CROWDED, 0.08),
    (deepen, MIB, CROWDED, 0.35),
    (roomy, 12 * MIB, ROOMY, 0.35),
)
"""How a segment is made, its capacity, what is done to it, and how many takeovers are stepped: on a
crowded one that takes a quarter of a million instructions."""


def sight(reader: Any) -> list[Any]:
    """Return all that can be read of a segment that stands still."""
    found: list[Any] = []
    for place in PLACES:
        found.append(reader.chunk(*place, b"", None, None, False))
        found.append(reader.count(*place))
    for index in INDEXES:
        found.append(reader.chunk(*STORE, index, None, None, True))
        found.append(reader.count(*STORE, index))
    found.append(reader.chunk(*LARGE, b"", None, None, False, False))
    scope = reader.scope("t", "")
    found.append(reader.get_many(scope, [f"k{number}" for number in range(24)]))
    found.append([reader.version(scope, f"k{number}") for number in range(0, 24, 5)])
    for cursor in (None, "id1", "id6", "id13"):
        try:
            found.append(reader.page(*STORE, 4, cursor, None))
        except LookupError:
            found.append(None)
    return found
