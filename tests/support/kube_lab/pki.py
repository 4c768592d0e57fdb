"""Keys, certificates and kubeconfigs of a lab, made with openssl; each lives as long as its directory."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

DAYS = 2
EXPIRED = -1
"""Days of a certificate that ended yesterday."""
CLIENT = "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\n"


def openssl(*arguments: str | Path) -> None:
    """Run openssl once.

    Raises:
        AssertionError: with what it said, when it fails.
    """
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


class Pki:
    """One certificate authority and what it signed."""

    def __init__(self, folder: Path) -> None:
        """Make the authority and the key that signs tokens of service accounts."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / "ca.crt"
        self._key(folder / "ca.key")
        openssl(
            "req", "-x509", "-new", "-key", folder / "ca.key", "-subj", "/CN=lab-ca", "-days", str(DAYS),
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", self.ca,
        )  # fmt: skip
        self._key(folder / "sa.key")
        openssl("ec", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub")

    @staticmethod
    def _key(path: Path) -> None:
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)

    def sign(self, name: str, subject: str, days: int = DAYS, hosts: str = "") -> tuple[Path, Path]:
        """Make a certificate.

        Args:
            name: what its files are called.
            subject: such as `/O=system:masters/CN=admin`: the groups and the user of a client.
            days: how long it is valid from now; a negative number is a certificate that has ended.
            hosts: as openssl writes them, such as `IP:127.0.0.1,DNS:localhost`, for a server.

        Returns:
            The certificate and its key.
        """
        certificate, key, asked = (self.folder / f"{name}.{kind}" for kind in ("crt", "key", "csr"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(CLIENT + (f"subjectAltName={hosts}\n" if hosts else ""), encoding="utf-8")
        self._key(key)
        openssl("req", "-new", "-key", key, "-subj", subject, "-out", asked)
        openssl(
            "x509", "-req", "-in", asked, "-CA", self.ca, "-CAkey", self.folder / "ca.key", "-CAcreateserial",
            "-days", str(days), "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return certificate, key


def kubeconfig(path: Path, server: str, ca: Path, user: Mapping[str, str], context: str = "lab") -> Path:
    """Write a kubeconfig of one context.

    Args:
        path: the file.
        server: the API server's URL.
        ca: the authority that signed its certificate.
        user: `client-certificate` and `client-key`, or `token`.
        context: what the context is called.
    """
    page = {
        "apiVersion": "v1", "kind": "Config", "current-context": context,
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "lab", "user": dict(user)}],
        "contexts": [{"name": context, "context": {"cluster": "lab", "user": "lab"}}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(page), encoding="utf-8")
    path.chmod(0o600)
    return path


def merged(path: Path, **contexts: Path) -> Path:
    """Write a kubeconfig with a context for each of several clusters, and return it.

    Args:
        path: the file.
        contexts: by the name of the context, a kubeconfig of one context.
    """
    pages = {name: yaml.safe_load(one.read_text(encoding="utf-8")) for name, one in contexts.items()}
    page = {
        "apiVersion": "v1", "kind": "Config", "current-context": next(iter(pages)),
        "clusters": [{"name": name, "cluster": page["clusters"][0]["cluster"]} for name, page in pages.items()],
        "users": [{"name": name, "user": page["users"][0]["user"]} for name, page in pages.items()],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in pages],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(page), encoding="utf-8")
    path.chmod(0o600)
    return path
