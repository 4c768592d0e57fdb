"""When a certificate ends, read from its PEM text: X.509 DER down to its validity; pure."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

_CONTEXT_0, _UTC_TIME = 0xA0, 0x17


def ends_at(pem: str) -> datetime | None:
    """Return when the first certificate of a PEM text ends; None where it cannot be read."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start, stop = pem.find(begin), pem.find(end)
    if start < 0 or stop < start:
        return None
    try:
        whole = ssl.PEM_cert_to_DER_cert(pem[start : stop + len(end)])
        ((_, certificate),) = _parts(whole)
        fields = _parts(next(_parts(certificate))[1])
        # version [0] (left out in v1), serial number, signature algorithm, issuer, validity (RFC 5280, section 4.1)
        skipped = 3 if next(fields)[0] == _CONTEXT_0 else 2
        for _ in range(skipped):
            next(fields)
        validity = _parts(next(fields)[1])
        next(validity)
        kind, text = next(validity)
        form = "%y%m%d%H%M%SZ" if kind == _UTC_TIME else "%Y%m%d%H%M%SZ"
        return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)
    except (ValueError, StopIteration, IndexError):
        return None


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Give tag and content of each value in a row of DER values."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size]), at + size
        yield tag, der[at : at + length]
        at += length
