"""Turns an error of the network into one line that says what to do."""

from __future__ import annotations

import http.client
import socket
import ssl
import time

from lorajob.cluster.errors import Unreachable

LOST = (ConnectionError, http.client.IncompleteRead, http.client.BadStatusLine, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""The connection broke after the request was sent, or while it was."""

NOT_YET_VALID, EXPIRED, OTHER_NAME = 9, 10, 62
"""X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_HOSTNAME_MISMATCH of OpenSSL."""


def explain(
    error: Exception, *, place: str, proxy: str | None, method: str, timeout_seconds: float | None
) -> Unreachable:
    """The error for what the network did. `place` and `proxy` are host:port of the server and of what is between."""
    where = f"{place} (through the proxy {proxy})" if proxy else place
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrust(error, place)
    if isinstance(error, ssl.SSLError) and not isinstance(error, LOST):
        return Unreachable(
            f"{where}: TLS failed: {_reason(error)}",
            hint="check the server's address in your kubeconfig, https and port",
        )
    if isinstance(error, socket.gaierror):
        name = (proxy or place).rpartition(":")[0]
        return Unreachable(
            f"the name {name} can't be resolved: {error.strerror}",
            hint="check the network, the VPN and the server's address in your kubeconfig",
        )
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(
            f"{where} refuses connections",
            hint="check that the cluster is running and that this is its address: `kubectl config view`",
        )
    if isinstance(error, TimeoutError):
        limit = "in time" if timeout_seconds is None else f"within {timeout_seconds:g} s"
        return Unreachable(f"{where} did not answer {limit}", hint=_uncertain(method) or None)
    if isinstance(error, LOST):
        return Unreachable(f"{where} closed the connection", hint=_uncertain(method) or "run the command again")
    if isinstance(error, OSError) and str(error).startswith("Tunnel connection failed"):
        return Unreachable(
            f"the proxy {proxy} refuses to connect to {place}: {error}", hint="check HTTPS_PROXY and NO_PROXY"
        )
    return Unreachable(f"{where} can't be reached: {_reason(error)}")


def _distrust(error: ssl.SSLCertVerificationError, place: str) -> Unreachable:
    if error.verify_code == NOT_YET_VALID:
        return Unreachable(
            f"the certificate of {place} is not valid yet: this machine's clock says {time.strftime('%Y-%m-%d %H:%M')}",
            hint="set this machine's clock, which is behind; if it is right, the cluster's clock must be checked",
        )
    if error.verify_code == EXPIRED:
        return Unreachable(
            f"the certificate of {place} has expired: this machine's clock says {time.strftime('%Y-%m-%d %H:%M')}",
            hint="if this clock is right, the people who run the cluster must renew the certificate",
        )
    if error.verify_code == OTHER_NAME:
        return Unreachable(
            f"the certificate of {place} is for another name: {error.verify_message}",
            hint="check the server's address in your kubeconfig, or set tls-server-name there",
        )
    return Unreachable(
        f"the certificate of {place} is not signed by the authority in your kubeconfig: {error.verify_message}",
        hint="get a new kubeconfig: this one belongs to another cluster, or to an earlier one at the same address",
    )


def _uncertain(method: str) -> str:
    """What a change that got no answer leaves open."""
    return "" if method == "GET" else "the change may have been made: check before you try again"


def _reason(error: Exception) -> str:
    text = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(text) or type(error).__name__
