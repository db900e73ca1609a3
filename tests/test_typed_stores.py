"""Stores whose records are msgspec Structs: what is read, what is taken, what is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import datetime, timezone
from typing import Any

import pytest

import shmstore
from shmstore.errors import InvalidArgument, InvalidRecord, RecordNotFound
from shmstore.namespaces import current
from tests.contract import EachClient

pytest.importorskip("msgspec", reason="msgspec, an extra, is not installed")
import msgspec
from msgspec import UNSET


class Owner(msgspec.Struct):
    name: str
    since: datetime


class Hook(msgspec.Struct):
    url: str
    status: str = "enabled"
    failures: int = 0
    key: bytes = b""
    owner: Owner | None = None
    id: str | msgspec.UnsetType = UNSET
    object: str | msgspec.UnsetType = UNSET
    created: int | msgspec.UnsetType = UNSET


class Hooks(shmstore.Store[Hook]):
    table, resource, prefix = "hooks", "hook", "we"
    indexes = ("status",)


class MoreHooks(Hooks):
    table = "more"


NOTHING: Any = None
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


class TestTypedStores(EachClient):
    @pytest.fixture
    def hooks(self, client):
        return Hooks(client)

    def test_a_struct_comes_back(self, hooks):
        given = Hook("u", key=b"\xff", owner=Owner("ada", NOON))
        hook = hooks.insert(given)
        assert given.id is UNSET
        assert type(hook) is Hook
        assert (hook.url, hook.key, hook.owner) == ("u", b"\xff", Owner("ada", NOON))
        assert str(hook.id).startswith("we_")
        assert (hook.object, type(hook.created)) == ("hook", int)
        assert hooks.get(hook.id) == hooks[hook.id] == hook
        assert hooks.get_versioned(hook.id) == (hooks.version(hook.id), hook)
        assert hooks.get_many([hook.id, "x"]) == {hook.id: hook}

    def test_unset_fields_are_not_stored(self, hooks):
        hook = hooks.insert({"url": "u", "more": 1})
        assert set(hooks.record(hook.id)) == {"url", "more", "id", "object", "created"}
        assert (hook.status, hook.failures) == ("enabled", 0)

    def test_every_read_gives_structs(self, hooks):
        hooks.insert_many(Hook(f"u{n}", id=f"we_{n}", created=n) for n in range(5))
        assert [hook.url for hook in hooks.list(3)] == ["u4", "u3", "u2"]
        page = hooks.list(2, ending_before="we_1")
        assert ([hook.id for hook in page], page.next_cursor) == (["we_3", "we_2"], "we_3")
        assert [hook.id for page in hooks.pages(2) for hook in page] == [
            f"we_{n}" for n in (4, 3, 2, 1, 0)
        ]
        assert [hook.id for hook in hooks.find(status="enabled", url="u2")] == ["we_2"]
        assert {type(hook) for hook in hooks.list_namespace(current())} == {Hook}
        assert hooks.find(url="u2", lazy=True)[0]["id"] == "we_2"
        assert type(hooks.list(lazy=True).data[0]) is shmstore.Record
        assert hooks.pop("we_4").url == "u4"
        assert hooks.pop("we_4", None) is None
        with pytest.raises(RecordNotFound):
            hooks.pop("we_4")
        with pytest.raises(RecordNotFound):
            hooks["we_4"]
        assert hooks.get("we_4", 7) == 7
        assert hooks.get_versioned("we_4", 7) == (0, 7)

    def test_changes(self, hooks):
        hook = hooks.insert(Hook("u"))
        hook.status = "disabled"
        assert hooks.update(hook) == hooks[hook.id] == hook
        assert hooks.patch(hook.id, url="v").url == "v"
        assert hooks.patch("x", url="v") is None
        assert hooks.increment(hook.id, "failures") == 1
        version, hook = hooks.get_versioned(hook.id)
        hook.failures = 9
        assert hooks.compare_and_swap(hook.id, version, hook)
        assert hooks[hook.id].failures == 9
        assert hooks.update({"id": hook.id, "url": "w"}).created == hook.created

    def test_what_does_not_fit_is_not_stored(self, hooks):
        for wrong in ({"url": 7}, {"status": "on"}, Hook(NOTHING), Owner("ada", NOON), [1]):
            with pytest.raises(InvalidRecord):
                hooks.insert(wrong)
            with pytest.raises(InvalidRecord):
                hooks.insert_many([Hook("u"), wrong])
        with pytest.raises(InvalidRecord, match=r"no Hook.*url"):
            hooks.update({"id": "a", "url": 7})
        with pytest.raises(InvalidRecord, match=r"no Hook.*url"):
            hooks.compare_and_swap("a", 0, {"url": 7})
        assert hooks.count() == 0

    def test_what_others_stored_and_does_not_fit_is_told(self, client, hooks):
        class Untyped(shmstore.Store):
            table, resource = "hooks", "hook"

        Untyped(client).insert({"id": "a", "n": 1})
        for read in (hooks.list, hooks.find, lambda: hooks["a"], lambda: hooks.get("a")):
            with pytest.raises(InvalidRecord, match=r"the record is no Hook: .*`url`"):
                read()
        assert hooks.record("a")["n"] == 1
        assert hooks.delete("a")

    def test_subclasses_have_the_type_too(self, client):
        more = MoreHooks(client)
        assert type(more.insert(Hook("u"))) is Hook
        assert Hooks(client).count() == 0


def test_pipelines_and_pickles(client):
    hooks = pickle.loads(pickle.dumps(Hooks(client)))
    with hooks.pipeline() as pipeline:
        hook = pipeline.insert(Hook("u"))
        reply = pipeline.patch(hook.id, url="v")
    assert reply.result() == hooks[hook.id]
    assert hooks[hook.id].url == "v"
    hooks._handle.close()


def declared(kind: Any) -> Any:
    class Declared(shmstore.Store[kind]):
        table, resource = "t", "r"

    return Declared


def test_only_structs_that_are_maps_can_be_named():
    for wrong in (int, list[int], Hook("u"), msgspec.defstruct("Row", ["id"], array_like=True)):
        with pytest.raises(InvalidArgument, match="class Declared"):
            declared(wrong)


def test_dicts_may_be_named(client):
    assert type(declared(dict[str, Any])(client).insert({"id": "a"})) is dict


def test_without_msgspec_the_error_names_the_extra():
    script = (
        "import sys; sys.modules['msgspec'] = None\n"
        "import shmstore\n"
        "try:\n"
        "    class Hooks(shmstore.Store[int]): table, resource = 'a', 'b'\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert "class Hooks" in said
    assert "pip install 'shmstore[msgspec]'" in said


def test_nobody_else_imports_msgspec():
    script = "import shmstore.stores.webhooks, sys; print('msgspec' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"
