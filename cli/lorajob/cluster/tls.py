"""The TLS settings for an Access: which certificates are trusted, and the client certificate that is sent."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator

from lorajob.cluster.access import Access
from lorajob.errors import UsageError


def context(access: Access, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """The context for one server; `certificate` and `key` are ours, as PEM texts. Raises UsageError for broken ones."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if access.insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif access.authority is None:
        made.load_default_certs()
    else:
        try:
            made.load_verify_locations(cadata=access.authority)
        except (ssl.SSLError, ValueError) as error:
            raise UsageError(f"{access.source}: certificate-authority holds no certificate: {error}") from error
    if certificate is not None:
        if key is None:
            raise UsageError(f"{access.source}: the user has a client-certificate and no client-key")
        _show(made, access, certificate, key)
    return made


def _show(made: ssl.SSLContext, access: Access, certificate: str, key: str) -> None:
    with _as_file(f"{certificate.rstrip()}\n{key}") as path:
        try:
            made.load_cert_chain(path, password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            raise UsageError(
                f"{access.source}: client-certificate and client-key can't be used: {error}",
                hint="get a new kubeconfig; a key with a passphrase is not supported",
            ) from error


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    """A path that has the text as long as the block lasts: ssl reads certificates from files only.

    In memory on Linux, elsewhere a temporary file that only its owner may read.
    """
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("client-certificate"), "wb") as file:
            file.write(text.encode())
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    import tempfile  # not needed where memory can be a file

    with tempfile.NamedTemporaryFile("w") as named:
        named.write(text)
        named.flush()
        yield named.name
