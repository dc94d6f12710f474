"""One active process at a time: a Lease that is renewed while we live and given back when we stop.

Timing follows client-go: whoever holds the lease renews it every :data:`RETRY` seconds and steps down by itself after
:data:`RENEW_DEADLINE` without success; others take it over when nobody renewed it for :data:`LEASE_DURATION` seconds on
*their own* clock, so the clocks of two machines are never compared.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
import uuid
from datetime import UTC, datetime

import structlog

from seiops.kube.client import KubeClient
from seiops.kube.client.errors import ApiError
from seiops.kube.client.resource import LEASES, Obj

LEASE_DURATION = 15
RENEW_DEADLINE = 10.0
RETRY = 2.0

log = structlog.get_logger("kube.leader")


class LeaderElector:
    """Acquires and keeps the lease ``namespace/name``."""

    def __init__(self, client: KubeClient, namespace: str, name: str, *, field_manager: str) -> None:
        self.identity = f"{socket.gethostname()}_{uuid.uuid4()}"
        self._client = client
        self._namespace = namespace
        self._name = name
        self._field_manager = field_manager
        self._lease: Obj | None = None
        self._seen: tuple[str, str] | None = None
        self._seen_at = 0.0
        self.leading = False
        """Whether the lease is ours, as far as we know."""

    async def acquire(self) -> None:
        """Returns when the lease is ours."""
        log.info("attempting to acquire leader lease", lease=f"{self._namespace}/{self._name}")
        while True:
            if await self._try():
                break
            await asyncio.sleep(RETRY * random.uniform(1.0, 2.2))
        self.leading = True
        log.info("successfully acquired lease", lease=f"{self._namespace}/{self._name}", identity=self.identity)

    async def hold(self) -> None:
        """Renews until the lease is lost, then returns: the caller must stop working at once."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(RETRY)
            try:
                async with asyncio.timeout(max(0.0, renewed + RENEW_DEADLINE - time.monotonic())):
                    if await self._try():
                        renewed = time.monotonic()
                        continue
            except TimeoutError:
                pass
            if self._taken() or time.monotonic() - renewed >= RENEW_DEADLINE:
                self.leading = False
                log.error("leader election lost", lease=f"{self._namespace}/{self._name}")
                return

    async def release(self) -> None:
        """Gives the lease back, so that the next process need not wait for it to run out."""
        if self._lease is None or self._lease["spec"].get("holderIdentity") != self.identity:
            return
        spec = {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        try:
            await self._client.replace(LEASES, {**self._lease, "spec": spec}, field_manager=self._field_manager)
        except ApiError as error:
            log.warning("lease was not released, the next leader waits for it to run out", error=str(error))
        self._lease = None
        self.leading = False

    def _taken(self) -> bool:
        """Somebody else holds the lease and it has not run out."""
        return self._lease is not None and self._lease["spec"].get("holderIdentity") not in (None, "", self.identity)

    async def _try(self) -> bool:
        """One attempt to take or renew; False if it is another's, or the API server did not let us."""
        try:
            return await self._take()
        except ApiError as error:
            if error.conflict or error.already_exists:
                self._lease = None
            else:
                log.warning("lease could not be taken or renewed", reason=error.reason, error=str(error))
            return False

    async def _take(self) -> bool:
        now = _now()
        mine = {"holderIdentity": self.identity, "leaseDurationSeconds": LEASE_DURATION, "renewTime": now}
        if self._lease is None or self._lease["spec"].get("holderIdentity") != self.identity:
            try:
                self._lease = await self._client.get(LEASES, self._name, self._namespace)
            except ApiError as error:
                if not error.not_found:
                    raise
                metadata = {"name": self._name, "namespace": self._namespace}
                fresh = {
                    "apiVersion": LEASES.api_version,
                    "kind": LEASES.kind,
                    "metadata": metadata,
                    "spec": {**mine, "acquireTime": now, "leaseTransitions": 0},
                }
                self._lease = await self._client.create(LEASES, fresh, field_manager=self._field_manager)
                return True
            if not self._is_free(self._lease["spec"]):
                return False
        spec = dict(self._lease["spec"])
        if spec.get("holderIdentity") != self.identity:
            mine |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        changed = {**self._lease, "spec": {**spec, **mine}}
        self._lease = await self._client.replace(LEASES, changed, field_manager=self._field_manager)
        return True

    def _is_free(self, spec: Obj) -> bool:
        """Nobody holds it, or its holder has not renewed it for its duration since we first saw this renewal."""
        holder, seen = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
        if holder in ("", self.identity):
            return True
        if self._seen != (holder, seen):
            self._seen, self._seen_at = (holder, seen), time.monotonic()
            return False
        return time.monotonic() - self._seen_at > float(spec.get("leaseDurationSeconds") or LEASE_DURATION)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
