"""TLS as both ends need it: the server's files are checked, a client trusts a given authority or one very certificate.

Called by `runtime.server`, by the command line's client and, in a process of its own, by Chaos Toolkit's extension;
standard library only.
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from controlplane.errors import UsageError

_END = "-----END CERTIFICATE-----"

CA_FILE = "CONTROLPLANE_CA_FILE"
"""Environment: PEM file with the authority that vouches for the server."""
PINNED = "CONTROLPLANE_PINNED_CERT"
"""Environment: PEM file with the server's own certificate, where it is trusted for being that very one."""
CLIENT_CERT = "CONTROLPLANE_CLIENT_CERT"
"""Environment: PEM file with this client's certificate and key, for servers that ask."""


def check_files(cert: Path, key: Path, client_ca: Path | None) -> None:
    """Make sure that a server can use its files.

    Raises:
        UsageError: when it cannot, with the reason.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        if client_ca:
            context.load_verify_locations(client_ca)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError.
        raise UsageError(
            "the TLS files cannot be used", str(error), "give PEM files: a certificate, its own key, an authority"
        ) from error


def first_certificate(pem: str) -> str:
    """Return the first certificate in a PEM text: the server's own."""
    body, end, _ = pem.partition(_END)
    return body[body.find("-----BEGIN CERTIFICATE-----") :] + end + "\n"


def client_context(environment: Mapping[str, str] | None = None, pinned: Path | None = None) -> ssl.SSLContext | None:
    """Return what a client trusts by its environment; None where nothing there says so: the system's authorities.

    Args:
        environment: variables named above; this process's own when left out.
        pinned: the server's own certificate. It is trusted whatever name it bears: nobody else has its key.

    Raises:
        OSError: when a file cannot be used.
    """
    given = os.environ if environment is None else environment
    ca, mine = given.get(CA_FILE, ""), given.get(CLIENT_CERT, "")
    pinned = pinned or (Path(given[PINNED]) if given.get(PINNED) else None)
    if not (ca or mine or pinned):
        return None
    if pinned:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(pinned)
    else:
        context = ssl.create_default_context(cafile=ca or None)
    if mine:
        context.load_cert_chain(mine)
    return context
