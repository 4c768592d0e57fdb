"""The server's certificate, renewed in its files while the server runs; connections that stand keep the one before."""

import ssl
from pathlib import Path

import structlog

from controlplane.errors import ControlplaneError
from controlplane.fleet.certificate import ends_at
from controlplane.runtime.state_dir import publish_address
from controlplane.settings import ServeSettings
from controlplane.tls import check_files

log = structlog.get_logger("server")


class Renewal:
    """Looks whether the files have changed, and takes over what is in them once both belong together.

    Whoever renews them (a Secret that is mounted, an ACME client) writes two files, so for a moment they may not. The
    authority for clients is read at the start alone: what was trusted once cannot be taken out of a live context.
    """

    def __init__(self, settings: ServeSettings, context: ssl.SSLContext, url: str) -> None:
        """Begin with the files as they are.

        Args:
            settings: name both files.
            context: what the server meets new connections with.
            url: where it answers; whoever pins its certificate is told of the new one.
        """
        self._settings = settings
        self._context = context
        self._url = url
        self._stamp = self._look()
        self._refused: object = None
        self._told = True
        """Whether the certificate that is served is written down for whoever pins it."""
        self._failed = False

    async def tick(self) -> None:
        """Take over new files; files that cannot be used are told of once, and the certificate before goes on."""
        self._take_over()
        if not self._told:
            self._tell()

    def _take_over(self) -> None:
        cert, key = self._settings.tls_cert, self._settings.tls_key
        stamp = self._look()
        if stamp in (self._stamp, self._refused) or cert is None or key is None:
            return
        try:
            check_files(cert, key, None)
            self._context.load_cert_chain(cert, key)
        except (ControlplaneError, OSError) as error:
            self._refused = stamp
            log.warning("certificate not renewed", why=str(error))
            return
        self._stamp, self._refused, self._told = stamp, None, False
        ends = ends_at(cert.read_text(encoding="utf-8"))
        log.info("certificate renewed", ends=ends.isoformat() if ends else "")

    def _tell(self) -> None:
        """Write down what is served; until that is done, the command line and drills refuse to talk to this server."""
        try:
            publish_address(self._settings, self._url)
        except ControlplaneError as error:
            if not self._failed:
                log.error("certificate not written down", what=error.what, why=error.why, fix=error.fix)
            self._failed = True
        else:
            self._told, self._failed = True, False

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in (self._settings.tls_cert, self._settings.tls_key))


def _stamp(path: Path | None) -> tuple[int, ...]:
    """Return what changes when a file does, or when another one is put in its place; nothing where there is none."""
    try:
        found = path.stat() if path else None
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size) if found else ()
