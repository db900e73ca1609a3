"""The functions of the pattern, as its other implementation has them, on the store of webhooks.

child_spec and start_link are start() and Webhooks(client).
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from shmstore.errors import InvalidRecord
from shmstore.namespaces import current, namespace
from shmstore.stores.webhooks import Webhooks
from tests.contract import EachClient


class TestWebhooks(EachClient):
    @pytest.fixture
    def hooks(self, client):
        return Webhooks(client)

    def test_insert_and_get(self, hooks):
        hook = hooks.insert({"url": "https://example.com/hook", "status": "enabled"})
        assert re.fullmatch("we_[0-9a-f]{16}", hook["id"])
        assert hook["object"] == "webhook_endpoint"
        assert hooks.get(hook["id"]) == hook
        assert hooks.get("we_0000000000000000") is None

    def test_update_replaces_the_whole_record(self, hooks):
        hook = hooks.insert({"url": "https://example.com/hook", "status": "enabled"})
        hooks.update({"id": hook["id"], "created": hook["created"], "status": "disabled"})
        assert hooks[hook["id"]] == {
            "id": hook["id"],
            "object": "webhook_endpoint",
            "created": hook["created"],
            "status": "disabled",
        }

    def test_delete_of_a_missing_id_is_no_error(self, hooks):
        hook = hooks.insert({"url": "https://example.com"})
        assert hooks.delete(hook["id"])
        assert not hooks.delete(hook["id"])
        assert hooks.get(hook["id"]) is None

    def test_count_list_and_list_namespace(self, hooks):
        made = [hooks.insert({"n": number}) for number in range(12)]
        assert hooks.count() == 12
        assert hooks.list().as_dict() == {
            "object": "list",
            "url": "/v1/webhook_endpoints",
            "has_more": True,
            "data": made[:1:-1],
        }
        assert hooks.list_namespace(current()) == made[::-1]

    def test_find_active(self, hooks):
        enabled = hooks.insert({"status": "enabled"})
        hooks.insert({"status": "disabled"})
        hooks.insert({})
        assert hooks.find_active() == [enabled]
        with namespace("elsewhere"):
            assert hooks.find_active() == []

    def test_clear_namespace_leaves_the_others(self, hooks):
        hooks.insert({})
        with namespace("kept for clearing") as name:
            hooks.insert({})
        assert hooks.clear_namespace(name) == 1
        assert hooks.clear_namespace(name) == 0
        assert hooks.count() == 1

    def test_clear_takes_all_namespaces(self, hooks):
        hooks.insert({})
        with namespace("elsewhere"):
            hooks.insert({})
            hooks.clear()
            assert hooks.count() == 0
        assert hooks.count() == 0

    def test_prefix_and_table_name(self, hooks):
        assert (hooks.prefix, hooks.table_name) == ("we", "webhooks")

    def test_a_bad_record_harms_nobody(self, hooks):
        hook = hooks.insert({"url": "https://example.com"})
        record: Any
        for record in ({"id": 7}, {"id": None}, [], None, {"x": {1}}, {"x": 2**64}):
            with pytest.raises(InvalidRecord):
                hooks.insert(record)
        assert hooks.list().data == [hook]
