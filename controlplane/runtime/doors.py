"""Who may come in: joins the doorkeeper, the guard and what admins may ask for."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from controlplane.clock import utcnow
from controlplane.security.chain import Deed
from controlplane.security.roles import Role, Scraping
from controlplane.security.tokens import FILE
from controlplane.settings import ServeSettings
from controlplane.store.audit import StoredAudit
from controlplane.store.database import Database
from controlplane.store.tokens import StoredSessions, StoredTokens
from controlplane.web.admin import AdminPorts
from controlplane.web.auth import Keeper
from controlplane.web.guard import GuardPorts
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
    name = cookie_name(secure=settings.secure)
    keeper = Keeper(tokens, StoredSessions(database), file_token, name, utcnow, monotonic)
    guard = GuardPorts(
        keeper, audit, utcnow, monotonic, scraping=Scraping(settings.scrape), secure=settings.secure, refused=refused
    )
    return Doors(keeper, guard, AdminPorts(tokens, audit, keeper.forget, utcnow))


def note_offline(database: Database, action: str, outcome: str, user: str) -> None:
    """Record in the audit log what somebody did on this machine without a running server."""
    deed = Deed(utcnow(), user, Role.ADMIN.value, FILE, "this machine", action, "", outcome, "no server was running")
    StoredAudit(database).append_now(deed)
