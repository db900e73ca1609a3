"""Webhook endpoints: where events are to be delivered."""

from __future__ import annotations

from ..store import Records, Store


class Webhooks(Store):
    """The webhook endpoints of the current namespace."""

    table, resource, prefix, url_path = (
        "webhooks",
        "webhook_endpoint",
        "we",
        "/v1/webhook_endpoints",
    )
    indexes = ("status",)

    def find_active(self) -> Records:
        """Return the endpoints whose status is "enabled", newest first."""
        return self.find(status="enabled")
