"""etcd and the API server: all that a cluster without pods needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cluster.certificates import Authority
from cluster.places import HOST_IP, NODE, SERVICE_NETWORK, Places, State
from cluster.running import Processes, run

FIRST_SERVICE_IP = "10.96.0.1"
"""Of SERVICE_NETWORK: what the API server calls itself inside the cluster."""


def processes(state: State) -> Processes:
    """The processes of a cluster."""
    return Processes(state.processes, state.logs)


def start(places: Places, state: State) -> Authority:
    """Starts an empty cluster's etcd and API server, with new certificates. Returns who signed these."""
    state.folder.mkdir(parents=True, exist_ok=True)
    authority = Authority(state.certificates)
    inside = [f"DNS:{name}" for name in ("kubernetes", "kubernetes.default", "kubernetes.default.svc")]
    addresses = [f"IP:{address}" for address in (FIRST_SERVICE_IP, state.host, "127.0.0.1")]
    authority.sign("apiserver", "/CN=kube-apiserver", "DNS:localhost", *inside, *addresses)
    authority.sign("admin", "/O=system:masters/CN=admin")
    authority.sign("kubelet", f"/O=system:nodes/CN=system:node:{NODE}", f"DNS:{NODE}", f"IP:{HOST_IP}")
    authority.kubeconfig(state.kubeconfig, "admin", f"https://{state.host}:{state.api_port}")
    started = processes(state)
    etcd = f"http://127.0.0.1:{state.etcd_port}"
    started.start(
        "etcd",
        *("etcd", "--data-dir", state.folder / "etcd", "--unsafe-no-fsync"),
        *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
        *("--listen-peer-urls", f"http://127.0.0.1:{state.etcd_port + 1}"),
        folder=state.folder,
    )
    started.start("kube-apiserver", places.programs / "kube-apiserver", *_options(state, etcd), folder=state.folder)
    return authority


def _options(state: State, etcd: str) -> list[str]:
    pki = state.certificates
    accounts = pki / "accounts.key"
    return [
        f"--etcd-servers={etcd}",
        f"--bind-address={state.host}",
        f"--secure-port={state.api_port}",
        # an endpoint of the Service `kubernetes` may not be a loopback address
        f"--advertise-address={HOST_IP}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'admin.crt'}",
        f"--kubelet-client-key={pki / 'admin.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={accounts}",
        f"--service-account-signing-key-file={accounts}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
    ]


def wait(places: Places, state: State) -> None:
    """Returns when the API server is ready. Raises ClusterError."""
    processes(state).wait("kube-apiserver", lambda: is_ready(places, state))


def is_ready(places: Places, state: State) -> bool:
    """Whether the API server answers that it is."""
    command = [places.programs / "kubectl", f"--kubeconfig={state.kubeconfig}", "get", "--raw=/readyz"]
    if not state.kubeconfig.exists():
        return False
    return subprocess.run([*command, "--request-timeout=5s"], capture_output=True, check=False).returncode == 0


def kubectl(places: Places, state: State, *arguments: str | Path, input: str | None = None) -> str:
    """What kubectl printed. Raises ClusterError."""
    return run(places.programs / "kubectl", f"--kubeconfig={state.kubeconfig}", *arguments, input=input)
