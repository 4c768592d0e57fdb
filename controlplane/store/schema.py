"""The tables. Changing one means a migration in `migrations/versions/`; a test compares the two."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


class Instant(TypeDecorator[datetime]):
    """An aware UTC time, stored as RFC 3339 text with microseconds: sorts as it stands, and no database shifts it."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Turn an aware time into text."""
        return value.astimezone(UTC).isoformat(timespec="microseconds") if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Turn text back into an aware time."""
        return datetime.fromisoformat(value) if value else None


metadata = MetaData()

receipts = Table(
    "receipts",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("service", String(128), nullable=False),
    Column("level", String(8), nullable=False),
    Column("action", Text, nullable=False),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("because", JSON, nullable=False),
    Column("detected_at", Instant, nullable=False),
    Column("decided_at", Instant, nullable=False),
    Column("intended_at", Instant),
    Column("applied_at", Instant),
    Column("verified_at", Instant),
    Column("reverting_at", Instant),
    Column("reverted_at", Instant),
    Column("failed_at", Instant),
    Column("detail", Text, nullable=False, default=""),
    Column("episode", Integer, nullable=False, server_default="0"),
    Column("steps", JSON, nullable=False, server_default="[]"),
    Column("token", Integer, nullable=False, server_default="0"),
    Index("receipts_by_time", "service", "decided_at"),
    Index("receipts_by_episode", "service", "level", "episode"),
)

# Who may act. The token grows with every change of hands; whoever writes must still hold the newest one.
leadership = Table(
    "leadership",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("holder", String(255), nullable=False),
    Column("token", Integer, nullable=False),
    Column("expires", Float, nullable=False),  # Unix seconds by the database's own clock
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("service", String(128), nullable=False),
    Column("level", String(8), nullable=False),
    Column("title", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("drill_id", String(255), nullable=False, default=""),
    Column("detected_at", Instant, nullable=False),
    Column("mitigated_at", Instant),
    Column("resolved_at", Instant),
    Column("severity", String(16), nullable=False, server_default="none"),
    Column("pool", String(256), nullable=False, server_default=""),
    Column("about", String(256), nullable=False, server_default="serving"),
    Column("began_at", Instant),
    Column("rows", JSON, nullable=False, server_default="[]"),
    Column("acknowledged_at", Instant),
    Column("acknowledged_by", String(128), nullable=False, server_default=""),
    Column("assignee", String(128), nullable=False, server_default=""),
    Column("resolved_by", String(128), nullable=False, server_default=""),
    Column("reopened_by", String(128), nullable=False, server_default=""),
    Index("incidents_by_time", "service", "detected_at"),
    Index("incidents_by_state", "service", "state", "resolved_at"),
)

# What belongs to an incident: alerts by their fingerprints, rows of the matrix as `row/P0`. It is also what makes a
# telling count once: the newest one that was correlated stands here.
incident_members = Table(
    "incident_members",
    metadata,
    Column("incident_id", String(255), ForeignKey("incidents.id"), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("starts_at", Instant, nullable=False),
    Column("ends_at", Instant),
    Column("is_row", Boolean, nullable=False),
    Column("pool", Text, nullable=False),
    Index("incident_members_by_key", "key"),
)

timeline = Table(
    "timeline",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("incident_id", String(255), ForeignKey("incidents.id"), nullable=False, index=True),
    Column("at", Instant, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("text", Text, nullable=False),
    Column("who", String(128), nullable=False, server_default=""),
)

# What the signals showed around an incident or a drill, thinned; only the newest are kept.
signal_histories = Table(
    "signal_histories",
    metadata,
    Column("about", String(255), primary_key=True),  # the id of an incident or of a drill
    Column("at", Instant, nullable=False),
    Column("traces", JSON, nullable=False),
    Index("signal_histories_by_time", "at"),
)

instructions = Table(
    "instructions",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("service", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("level", String(8), nullable=False),
    Column("who", String(128), nullable=False),
    Column("why", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("until", Instant),
    Column("ended_at", Instant),
    Column("ended_by", String(128), nullable=False, default=""),
    Column("ended_why", Text, nullable=False, default=""),
    Index("instructions_by_time", "service", "at"),
)

drills = Table(
    "drills",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("experiment", String(128), nullable=False),
    Column("row", String(8), nullable=False),
    Column("objective_s", Integer, nullable=False),
    Column("requested_by", String(128), nullable=False),
    Column("slot", String(128)),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("outcome", String(16), nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("phases", JSON, nullable=False),
    Column("journal", Text, nullable=False, default=""),
    Column("users", JSON, nullable=False, server_default="{}"),
    Column("called_off", Text, nullable=False, server_default=""),
    # One run a slot, whoever asks: two control planes, or one that restarted in the slot's minute.
    UniqueConstraint("experiment", "slot", name="one_run_a_slot"),
    Index("drills_by_time", "started_at"),
    # One drill at a time, even when two control planes pass their gates in the same moment.
    Index(
        "one_drill_at_a_time", "outcome", unique=True,
        sqlite_where=text("outcome = 'running'"), postgresql_where=text("outcome = 'running'"),
    ),
)  # fmt: skip

drill_events = Table(
    "drill_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("drill_id", String(255), ForeignKey("drills.id"), nullable=False, index=True),
    Column("at", Instant, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("text", Text, nullable=False),
)

drill_slots = Table(
    "drill_slots",
    metadata,
    Column("experiment", String(128), primary_key=True),
    Column("slot", String(128), primary_key=True),
    Column("due_at", Instant, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("at", Instant, nullable=False),
)

halts = Table(
    "halts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("why", Text, nullable=False),
    Column("by", String(128), nullable=False),
    Column("at", Instant, nullable=False),
    Column("resumed_by", String(128)),
    Column("resumed_at", Instant),
)

leases = Table(
    "leases",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("drill_id", String(255), ForeignKey("drills.id"), nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("endpoint", JSON, nullable=False),
    Column("parameters", JSON, nullable=False, server_default="{}"),
    Column("state", String(16), nullable=False),
    Column("deadline", Instant, nullable=False),
    Column("intended_at", Instant, nullable=False),
    Column("injected_at", Instant),
    Column("proven_at", Instant),
    Column("healed_at", Instant),
    Column("detail", Text, nullable=False, default=""),
)

# One row an alert, whoever tells of it and however often; `was` is the status before the last change.
alerts = Table(
    "alerts",
    metadata,
    Column("fingerprint", String(64), primary_key=True),
    Column("starts_at", Instant, nullable=False),
    Column("status", String(16), nullable=False),
    Column("was", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("ends_at", Instant),
    Column("source", String(16), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("annotations", JSON, nullable=False),
    Column("generator", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Index("alerts_by_status", "status", "at"),
)

# Secrets are kept as hashes only.
tokens = Table(
    "tokens",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("hashed", String(64), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("expires_at", Instant),
    Column("last_used_at", Instant),
    Column("revoked_at", Instant),
    Column("revoked_by", String(128), nullable=False, default=""),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hashed", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("credential", String(255), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Index("sessions_by_credential", "credential"),
)

# Append-only, by triggers; the hash of each row holds the one before (`security.chain`).
audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("who", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("credential", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("before", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

# One row: where the chain ends. Whoever appends locks it, so that two control planes make one chain.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)

# Writes that may be sent again: what they were answered, for a day.
replays = Table(
    "replays",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("content", String(64), nullable=False),
    Column("begun_at", Instant, nullable=False),
    Column("status", Integer, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("replays_by_time", "begun_at"),
)
