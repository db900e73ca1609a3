"""Ready-made stores: one resource to a file, each of a few lines."""

from __future__ import annotations

from .customers import Customers
from .webhooks import Webhooks

__all__ = ["Customers", "Webhooks"]
