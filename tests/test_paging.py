"""Paging: a walk sees every record that was there throughout exactly once, in a total order."""

from __future__ import annotations

from threading import Thread

import pytest

from shmstore.errors import InvalidArgument, UnknownCursor
from shmstore.namespaces import namespace
from shmstore.store import Store
from shmstore.store.page import Page
from tests.contract import EachClient


class Events(Store):
    table, resource, prefix, url_path = "events", "event", "ev", "/v1/events"


def numbers(page):
    return [record["n"] for record in page]


class TestPaging(EachClient):
    @pytest.fixture
    def events(self, client):
        return Events(client)

    @pytest.fixture
    def thirty(self, events):
        """Thirty records made in the same second, oldest first."""
        return events.insert_many([{"id": f"e{n}", "n": n, "created": 1000} for n in range(30)])

    def test_a_page_is_newest_first(self, events, thirty):
        page = events.list()
        assert isinstance(page, Page)
        assert numbers(page) == [29, 28, 27, 26, 25, 24, 23, 22, 21, 20]
        assert (page.object, page.url, page.has_more) == ("list", "/v1/events", True)
        assert page.next_cursor == page.data[-1]["id"] == "e20"
        assert len(page) == 10
        assert page.data == thirty[:19:-1]

    def test_created_comes_before_the_order_of_insertion(self, events):
        for n, created in enumerate([5, 7, 5, -3, 7, 2**63 - 1, 1 - 2**63, 0]):
            events.insert({"n": n, "created": created})
        assert numbers(events.list()) == [5, 4, 1, 2, 0, 7, 3, 6]
        assert [record["n"] for record in events.find()] == [5, 4, 1, 2, 0, 7, 3, 6]

    def test_an_update_keeps_the_position_and_a_new_time_changes_it(self, events, thirty):
        events.update({"id": "e5", "n": 105})
        assert numbers(events.list(limit=100))[24] == 105
        events.update({"id": "e5", "n": 205, "created": 2000})
        assert numbers(events.list(limit=100))[0] == 205
        assert len(events.list(limit=100)) == 30

    def test_empty(self, events):
        page = events.list()
        assert (page.data, page.has_more, page.next_cursor) == ([], False, None)
        assert not list(page)

    @pytest.mark.parametrize(
        ("limit", "length", "more"),
        [(1, 1, True), (29, 29, True), (30, 30, False), (31, 30, False), (10**9, 30, False)],
    )
    def test_limits(self, events, thirty, limit, length, more):
        page = events.list(limit=limit)
        assert (len(page), page.has_more) == (length, more)
        assert page.next_cursor == (page.data[-1]["id"] if more else None)

    def test_a_limit_is_at_most_100(self, events):
        events.insert_many([{"n": n} for n in range(101)])
        page = events.list(limit=1000)
        assert (len(page), page.has_more) == (100, True)

    @pytest.mark.parametrize("limit", [0, -1, 1.0, "10", None, True])
    def test_bad_limits(self, events, limit):
        with pytest.raises(InvalidArgument, match="limit"):
            events.list(limit=limit)

    def test_starting_after(self, events, thirty):
        page = events.list(limit=3, starting_after="e10")
        assert (numbers(page), page.has_more, page.next_cursor) == ([9, 8, 7], True, "e7")
        page = events.list(limit=3, starting_after="e3")
        assert (numbers(page), page.has_more, page.next_cursor) == ([2, 1, 0], False, None)
        assert events.list(starting_after="e0").data == []

    def test_ending_before_is_the_page_just_before(self, events, thirty):
        page = events.list(limit=3, ending_before="e10")
        assert (numbers(page), page.has_more, page.next_cursor) == ([13, 12, 11], True, "e13")
        page = events.list(limit=3, ending_before="e26")
        assert (numbers(page), page.has_more, page.next_cursor) == ([29, 28, 27], False, None)
        assert events.list(ending_before="e29").data == []

    def test_walks_in_both_directions_meet_all(self, events, thirty):
        down, page = [], events.list(limit=7)
        while True:
            down += numbers(page)
            if not page.has_more:
                break
            page = events.list(limit=7, starting_after=page.next_cursor)
        assert down == list(range(29, -1, -1))
        up, page = [0], events.list(limit=7, ending_before="e0")
        while True:
            up = numbers(page) + up
            if not page.has_more:
                break
            page = events.list(limit=7, ending_before=page.next_cursor)
        assert up == down

    def test_both_cursors_are_one_too_many(self, events, thirty):
        with pytest.raises(InvalidArgument, match="exclude"):
            events.list(starting_after="e1", ending_before="e5")

    @pytest.mark.parametrize("cursor", ["nobody", "", "x" * 70000])
    def test_a_cursor_that_never_existed(self, events, thirty, cursor):
        for argument in ("starting_after", "ending_before"):
            with pytest.raises(LookupError):
                events.list(**{argument: cursor})

    def test_an_unknown_cursor_is_named(self, events):
        with pytest.raises(UnknownCursor, match="nobody"):
            events.list(starting_after="nobody")

    @pytest.mark.parametrize("cursor", [5, b"e1", {"id": "e1"}])
    def test_a_cursor_is_an_id(self, events, thirty, cursor):
        with pytest.raises(InvalidArgument, match="starting_after"):
            events.list(starting_after=cursor)

    def test_a_cursor_of_another_namespace_is_unknown(self, events, thirty):

        with namespace("elsewhere"), pytest.raises(UnknownCursor):
            events.list(starting_after="e1")

    @pytest.mark.parametrize("remove", ["delete", "pop"])
    def test_a_deleted_cursor_works(self, events, thirty, remove):
        for n in (9, 10, 11):
            getattr(events, remove)(f"e{n}")
        assert numbers(events.list(limit=2, starting_after="e10")) == [8, 7]
        assert numbers(events.list(limit=2, ending_before="e10")) == [13, 12]

    def test_cursors_deleted_together_work(self, events, thirty):
        events.delete_many(["e28", "e29"])
        events.delete_where(n=10)
        assert numbers(events.list(limit=1, starting_after="e28")) == [27]
        assert numbers(events.list(limit=1, starting_after="e10")) == [9]

    def test_pages_yields_all(self, events, thirty):
        pages = list(events.pages(limit=8))
        assert [len(page) for page in pages] == [8, 8, 8, 6]
        assert [record for page in pages for record in page] == thirty[::-1]
        assert [len(page) for page in events.pages()] == [30]
        with pytest.raises(InvalidArgument, match="limit"):
            events.pages(limit=0)

    def test_a_walk_among_inserts_neither_skips_nor_repeats(self, events):
        """100 records of one second, walked by 3 while 5,000 others of that second come in."""
        there = events.insert_many([{"created": 1000, "n": n} for n in range(100)])
        seen, inserted = [], 0
        cursor = None
        while True:
            page = events.list(limit=3, starting_after=cursor)
            seen += page.data
            if not page.has_more:
                break
            cursor = page.next_cursor
            events.insert_many([{"created": 1000, "n": -1}] * 150)
            inserted += 150
            if len(seen) % 9 == 0:
                events.delete(cursor)
        assert inserted >= 4900
        assert seen == there[::-1]
        assert events.count() >= 4900

    def test_a_walk_upwards_among_inserts_neither_skips_nor_repeats(self, events):
        there = events.insert_many([{"created": 1000, "n": n} for n in range(100)])
        seen, cursor = [there[0]], there[0]["id"]
        while len(seen) < 100:
            page = events.list(limit=9, ending_before=cursor)
            seen += page.data[::-1]
            cursor = page.next_cursor
            events.insert_many([{"created": 1000, "n": -1}] * 100)
        assert seen[:100] == there


def test_walks_while_another_client_inserts(server, client):
    """The same with the insertions coming from elsewhere, at no agreed time."""
    events = Events(client)
    there = events.insert_many([{"created": 1000, "n": n} for n in range(100)])

    def insert():
        with server.connect() as other, Events(other).pipeline() as p:
            for _ in range(500):
                p.insert_many([{"created": 1000, "n": -1}] * 10)

    thread = Thread(target=insert)
    thread.start()
    walks = 0
    while thread.is_alive() or not walks:
        cursor, seen = there[-1]["id"], [there[-1]]
        for page in walk_from(events, cursor):
            seen += page.data
        assert seen == there[::-1]
        assert [record for record in events.find() if record["n"] >= 0] == there[::-1]
        walks += 1
    thread.join()
    assert events.count() == 5100


def walk_from(events, cursor):
    while cursor is not None:
        page = events.list(limit=3, starting_after=cursor)
        yield page
        cursor = page.next_cursor
