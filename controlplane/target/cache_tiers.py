"""Where answers lie behind the cache's memory: SQLite on disk, Redis, object storage. And the guard in front of each.

A tier is a helper, never a dependency: one that fails or is slow is left out for a while, and counted.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from controlplane.target.errors import TargetError
from controlplane.target.spec import CacheSpec

T = TypeVar("T")
FAILURES_TO_OPEN = 3
"""Failures in a row after which a tier is left alone."""
OPEN_S = 2.0
"""How long it is left alone; then one request tries it."""
DISK_THREADS = 1
"""SQLite takes one writer at a time."""
OBJECT_THREADS = 4
PREFIX = "controlplane:answer:"
"""What the keys in Redis begin with."""


class Tier(Protocol):
    """A place for answers."""

    name: str

    async def get(self, key: str) -> bytes | None:
        """Return what is stored under a key."""

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Store a value for about ``ttl_s`` seconds."""

    async def close(self) -> None:
        """Let go of connections, files and threads."""


class DiskTier:
    """SQLite through diskcache, in a thread."""

    name = "disk"

    def __init__(self, directory: Path, size_bytes: int) -> None:
        """Open or make the database.

        Raises:
            TargetError: when diskcache is missing or the directory cannot be used.
        """
        try:
            import diskcache  # type: ignore[import-untyped]  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            raise _missing("diskcache") from error
        try:
            self._cache: Any = diskcache.Cache(
                str(directory), size_limit=size_bytes, eviction_policy="least-recently-stored"
            )
        except Exception as error:
            raise TargetError(f"cannot store answers in {directory}", str(error), "Choose another folder.") from error
        self._threads = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")

    async def get(self, key: str) -> bytes | None:
        """Return what is stored under a key."""
        found = await asyncio.get_running_loop().run_in_executor(self._threads, self._cache.get, key)
        return found if isinstance(found, bytes) else None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Store a value."""
        await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: self._cache.set(key, value, expire=ttl_s)
        )

    async def close(self) -> None:
        """Close the database."""
        self._threads.submit(self._cache.close)
        self._threads.shutdown(wait=True)


class RedisTier:
    """Redis, shared by every cache that names it."""

    name = "redis"

    def __init__(self, url: str, timeout_s: float) -> None:
        """Make a client; nothing is connected yet.

        Raises:
            TargetError: when the client library is missing or the URL makes no sense.
        """
        try:
            from redis import asyncio as redis  # noqa: PLC0415 - an optional dependency
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
        except ImportError as error:
            raise _missing("redis") from error
        try:
            self._client: Any = redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
            )
        except ValueError as error:
            raise TargetError(f"cannot use Redis at {url}", str(error), "Write redis://host:6379/0.") from error

    async def get(self, key: str) -> bytes | None:
        """Return what is stored under a key."""
        found = await self._client.get(PREFIX + key)
        return found if isinstance(found, bytes) else None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Store a value."""
        await self._client.set(PREFIX + key, value, px=max(round(ttl_s * 1000), 1))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class ObjectTier:
    """Object storage through fsspec, in threads. Expired objects are the storage's life-cycle rules' business."""

    name = "object"

    def __init__(self, url: str) -> None:
        """Open the storage.

        Raises:
            TargetError: when fsspec, or its driver for this kind of URL, is missing.
        """
        try:
            import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            raise _missing("fsspec") from error
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise TargetError(
                f"cannot use object storage at {url}", str(error), "Install its driver, such as s3fs, or mend the URL."
            ) from error
        self._threads = ThreadPoolExecutor(OBJECT_THREADS, thread_name_prefix="object")

    async def get(self, key: str) -> bytes | None:
        """Return what is stored under a key."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, self._path(key))

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Store a value; its own record says when it is over."""
        del ttl_s
        await asyncio.get_running_loop().run_in_executor(self._threads, self._write, self._path(key), value)

    async def close(self) -> None:
        """Let go of the threads; one that hangs in the storage is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _path(self, key: str) -> str:
        """Spread keys over folders: some storages limit the rate by prefix."""
        return f"{self._root}/{hashlib.blake2b(key.encode(), digest_size=1).hexdigest()}/{key}.json"

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(path))
        except FileNotFoundError:
            return None

    def _write(self, path: str, value: bytes) -> None:
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(path, value)


def _missing(library: str) -> TargetError:
    return TargetError(
        "cannot run the response cache", f"{library} is missing", "pip install 'controlplane[target]' (it brings it)."
    )


@dataclass(slots=True)
class Guarded:
    """A tier that may fail: each call has a deadline, and after failures in a row there is a pause."""

    tier: Tier
    timeout_s: float
    skipped: Callable[[str, str], None]
    """Told (tier, reason) of each call that was left out or lost: ``timeout``, ``error`` or ``open``."""
    now: Callable[[], float] = time.monotonic
    _failures: int = field(default=0)
    _open_until: float = field(default=0.0)

    @property
    def name(self) -> str:
        """The tier's name."""
        return self.tier.name

    async def get(self, key: str) -> bytes | None:
        """Return what the tier has, or None; never raises, never waits longer than the timeout."""
        return await self._call(lambda: self.tier.get(key))

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Store a value, if the tier can."""
        await self._call(lambda: self.tier.put(key, value, ttl_s))

    async def close(self) -> None:
        """Close the tier."""
        with suppress(Exception):
            async with asyncio.timeout(1.0):
                await self.tier.close()

    async def _call(self, work: Callable[[], Awaitable[T]]) -> T | None:
        if self.now() < self._open_until:
            self.skipped(self.tier.name, "open")
            return None
        try:
            async with asyncio.timeout(self.timeout_s):
                found = await work()
        except TimeoutError:
            self._failed("timeout")
            return None
        except Exception:  # noqa: BLE001 - drivers raise their own kinds; each means that the tier is no help now
            self._failed("error")
            return None
        self._failures = 0
        return found

    def _failed(self, reason: str) -> None:
        self.skipped(self.tier.name, reason)
        self._failures += 1
        if self._failures >= FAILURES_TO_OPEN:
            self._open_until = self.now() + OPEN_S


def open_tiers(spec: CacheSpec, skipped: Callable[[str, str], None]) -> list[Guarded]:
    """Open the tiers that a cache is told to use, nearest first.

    Raises:
        TargetError: when a library is missing or an address makes no sense.
    """
    tiers: list[Guarded] = []
    if spec.redis_url:
        tiers.append(Guarded(RedisTier(spec.redis_url, spec.tier_timeout_s), spec.tier_timeout_s, skipped))
    elif spec.directory:
        tiers.append(Guarded(DiskTier(spec.directory, spec.disk_bytes), spec.tier_timeout_s, skipped))
    if spec.object_url:
        tiers.append(Guarded(ObjectTier(spec.object_url), spec.object_timeout_s, skipped))
    return tiers
