"""Customers: the smallest example of a second resource."""

from __future__ import annotations

from ..store import Records, Store


class Customers(Store):
    """The customers of the current namespace."""

    table, resource, prefix, url_path = "customers", "customer", "cus", "/v1/customers"
    indexes = ("email",)

    def find_by_email(self, email: str) -> Records:
        """Return the customers with this address, newest first."""
        return self.find(email=email)
