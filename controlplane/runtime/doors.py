"""Who may come in: joins the doorkeeper, the guard and what admins may ask for."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from controlplane.clock import utcnow
from controlplane.errors import UsageError
from controlplane.security.chain import Deed
from controlplane.security.roles import Role, Scraping
from controlplane.security.tokens import FILE
from controlplane.settings import ServeSettings
from controlplane.store.audit import StoredAudit
from controlplane.store.database import Database, open_database, sqlite_url
from controlplane.store.replays import StoredReplays
from controlplane.store.tokens import StoredSessions, StoredTokens
from controlplane.web.api.admin import AdminPorts, read_head, spell_checked
from controlplane.web.auth import Keeper
from controlplane.web.guard import GuardPorts
from controlplane.web.once import Once
from controlplane.web.sessions import cookie_name


@dataclass(frozen=True, slots=True)
class Doors:
    """What the application needs to know who may come in."""

    keeper: Keeper
    guard: GuardPorts
    admin: AdminPorts


def doors(database: Database, settings: ServeSettings, file_token: str, refused: Callable[[int], None]) -> Doors:
    """Join them.

    Args:
        database: where tokens, sessions and the audit log are.
        settings: how this process is run.
        file_token: the token in the state directory.
        refused: counts a refusal by its status.
    """
    tokens, audit = StoredTokens(database), StoredAudit(database)
    name = cookie_name(secure=settings.browsers_use_https)
    keeper = Keeper(tokens, StoredSessions(database), file_token, name, utcnow, monotonic)
    guard = GuardPorts(
        keeper,
        audit,
        utcnow,
        monotonic,
        scraping=Scraping(settings.scrape),
        secure=settings.browsers_use_https,
        refused=refused,
        once=Once(StoredReplays(database), utcnow),
    )
    return Doors(keeper, guard, AdminPorts(tokens, audit, keeper.forget, utcnow))


def check_offline(state_dir: Path, noted: str, database_url: str) -> dict[str, Any]:
    """Follow the audit log's chain without a running server.

    Args:
        state_dir: holds the database where no other is named.
        noted: a head known from elsewhere as `NUMBER:HASH`; may be empty.
        database_url: an SQLAlchemy URL; may be empty.

    Raises:
        UsageError: when there is no database, or the head is none.
        StoreError: when the database cannot be used.
    """
    settings = ServeSettings(state_dir, state_dir)
    if not database_url and not settings.database.exists():
        raise UsageError(f"no database in {state_dir}", "no control plane ever ran on it", "name its --state-dir")
    with contextlib.closing(open_database(database_url or sqlite_url(settings.database))) as database:
        return spell_checked(asyncio.run(StoredAudit(database).check(read_head(noted))))


def note_offline(database: Database, action: str, outcome: str, user: str) -> None:
    """Record in the audit log what somebody did on this machine without a running server."""
    deed = Deed(utcnow(), user, Role.ADMIN.value, FILE, "this machine", action, "", outcome, "no server was running")
    StoredAudit(database).append_now(deed)
