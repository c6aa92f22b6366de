"""Certificates of an authority that only the tests trust (trustme's)."""

import ssl
from pathlib import Path
from typing import Any, NamedTuple

import trustme


class Pair(NamedTuple):
    """Files of a certificate and its key."""

    cert: Path
    key: Path

    @property
    def options(self) -> tuple[str, ...]:
        return ("--certfile", str(self.cert), "--keyfile", str(self.key))


class Authority:
    """A directory of certificates that one authority has signed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ca = trustme.CA()
        self.file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, *names: str, file: str = "server", **more: Any) -> Pair:
        """Write (over) the files of a certificate for `names`."""
        issued = self._ca.issue_cert(*names, **more)
        pair = Pair(self._directory / f"{file}.pem", self._directory / f"{file}.key")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        for path, content in ((pair.cert, chain), (pair.key, issued.private_key_pem.bytes())):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.replace(path)
        return pair

    def client(self, pair: Pair | None = None) -> ssl.SSLContext:
        """A client's context that trusts this authority and shows the certificate of `pair`."""
        context = ssl.create_default_context(cafile=self.file)
        if pair is not None:
            context.load_cert_chain(*pair)
        return context
