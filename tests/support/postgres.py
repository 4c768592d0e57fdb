"""A PostgreSQL server of its own for tests: a new cluster in a directory that goes, reached by a socket in it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ACCOUNT = "postgres"
"""PostgreSQL does not run as root; whoever else runs the tests runs it themselves."""


def binaries() -> Path | None:
    """Return where Debian keeps the newest server's programs; None when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


@contextmanager
def postgres(programs: Path, *, durable: bool = False) -> Iterator[str]:
    """Run a server; give the SQLAlchemy URL of an empty database. One for a bench waits for the disk."""
    user = ACCOUNT if os.getuid() == 0 else None
    name = user or pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if user:
            shutil.chown(folder, user)
        data = folder / "data"
        options = f"-k {folder} -c listen_addresses='' -c fsync={'on' if durable else 'off'}"
        _run([programs / "initdb", "-D", data, "-A", "trust", "-E", "UTF8"], user)
        _run([programs / "pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "start"], user)
        try:
            yield f"postgresql+psycopg://{name}@/postgres?host={folder}"
        finally:
            _run([programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str | Path], user: str | None) -> None:
    done = subprocess.run(
        [*map(str, command)], user=user, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
