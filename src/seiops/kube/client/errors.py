"""One exception for everything that can go wrong between us and the API server."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer other than success, or no answer.

    ``status`` is the HTTP status (0: nothing came back), ``reason`` the machine-readable word of the Status object
    (``NotFound``, ``AlreadyExists``, ``Conflict``, ``Invalid``, ``Forbidden``, ``Expired``, ...), or for transport errors
    ``Unreachable`` or ``Timeout``. ``str()`` is the server's message.
    """

    def __init__(self, status: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def already_exists(self) -> bool:
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def expired(self) -> bool:
        """The resource version or continue token is too old: list again."""
        return self.status == 410 or self.reason in ("Expired", "Gone")

    @classmethod
    def from_status(cls, code: int, status: dict[str, Any]) -> ApiError:
        """From a Kubernetes ``Status`` object, or from whatever a proxy in between answered."""
        return cls(
            int(status.get("code") or code),
            str(status.get("reason") or f"HTTP{code}"),
            str(status.get("message") or f"the API server answered {code}"),
            status.get("details"),
        )
