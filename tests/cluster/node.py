"""The rest of a cluster: its controllers, and this machine as its one node, with fake GPUs, volumes and a DNS."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

from cluster import images, kernel, settings
from cluster.api_server import kubectl, processes
from cluster.certificates import Authority
from cluster.places import BRIDGE, GPUS, HOST_IP, NODE, POD_NETWORK, Places, State
from cluster.running import run, say

PARTS = (
    "etcd",
    "kube-apiserver",
    "containerd",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
    "volume-provisioner",
)


def prepare(state: State) -> None:
    """Makes the bridge between this machine and the pods; the API server listens on it."""
    kernel.remember(state.kernel_settings)
    kernel.set_value("net/ipv4/ip_forward", "1")
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{HOST_IP}/{POD_NETWORK.rpartition('/')[2]}", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")


def start_containers(places: Places, state: State) -> None:
    """Starts containerd, rid of what a killed cluster left in it, with the image of a pod's frame."""
    for name in ("cni", "kubelet", "volumes"):
        (state.folder / name).mkdir()
    (state.folder / "resolv.conf").touch()
    (state.folder / "containerd.toml").write_text(settings.containerd(places, state))
    (state.folder / "cni" / "10-bridge.conflist").write_text(settings.pod_network(state))
    _start_containerd(state)
    if images.forget_containers(state):
        # it knows of their sandboxes until it starts anew
        processes(state).stop("containerd")
        _start_containerd(state)
    images.load_pause(places, state)


def _start_containerd(state: State) -> None:
    started = processes(state)
    started.start("containerd", "containerd", "-c", state.folder / "containerd.toml", folder=state.folder)
    started.wait("containerd", lambda: images.answers(state))


def start(places: Places, state: State, authority: Authority) -> None:
    """Starts everything that talks to the API server and returns when pods can be scheduled."""
    _start_controllers(places, state)
    _start_node(places, state, authority)
    kubectl(places, state, "apply", "-f", "-", input=settings.STORAGE_CLASS)
    started = processes(state)
    started.wait(
        "kubelet", lambda: _succeeds(places, state, "wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=1s")
    )
    _add_gpus(places, state)
    started.wait(
        "kube-controller-manager", lambda: _succeeds(places, state, "get", "serviceaccount", "default"), seconds=30
    )
    started.wait("coredns", _dns_is_ready)


def _start_controllers(places: Places, state: State) -> None:
    started, programs, pki = processes(state), places.programs, state.certificates
    once = ("--leader-elect=false", "--secure-port=0", f"--kubeconfig={state.kubeconfig}")
    started.start(
        "kube-controller-manager",
        programs / "kube-controller-manager",
        *once,
        f"--service-account-private-key-file={pki / 'accounts.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        "--use-service-account-credentials",
        f"--flex-volume-plugin-dir={state.folder / 'volume-plugins'}",
        folder=state.folder,
    )
    started.start("kube-scheduler", programs / "kube-scheduler", *once, folder=state.folder)
    started.start(
        "volume-provisioner",
        programs / "volume-provisioner",
        f"--kubeconfig={state.kubeconfig}",
        f"--root={state.volumes}",
        folder=state.folder,
    )
    (state.folder / "Corefile").write_text(settings.dns(state))
    started.start("coredns", programs / "coredns", "-conf", state.folder / "Corefile", folder=state.folder)


def _start_node(places: Places, state: State, authority: Authority) -> None:
    started = processes(state)
    own = state.folder / "kubelet.kubeconfig"
    authority.kubeconfig(own, "kubelet", f"https://{state.host}:{state.api_port}")
    (state.folder / "kubelet.yaml").write_text(settings.kubelet(state))
    started.start(
        "kubelet",
        places.programs / "kubelet",
        f"--kubeconfig={own}",
        f"--config={state.folder / 'kubelet.yaml'}",
        f"--root-dir={state.folder / 'kubelet'}",
        f"--hostname-override={NODE}",
        f"--node-ip={HOST_IP}",
        folder=state.folder,
    )
    started.start(
        "kube-proxy",
        places.programs / "kube-proxy",
        f"--kubeconfig={state.kubeconfig}",
        f"--hostname-override={NODE}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={POD_NETWORK}",
        # Services work for pods of one bridge whether or not the kernel shows bridged packets to iptables
        "--masquerade-all",
        # the machine's own limit stays
        "--conntrack-max-per-core=0",
        "--healthz-bind-address=127.0.0.1:10256",
        "--metrics-bind-address=127.0.0.1:10249",
        folder=state.folder,
    )


def _add_gpus(places: Places, state: State) -> None:
    """Nothing backs these: the scheduler and quotas count them, the kubelet admits them, a container sees none."""
    gpus = {"nvidia.com/gpu": str(GPUS)}
    patch = json.dumps({"status": {"capacity": gpus, "allocatable": gpus}})
    kubectl(places, state, "patch", "node", NODE, "--subresource=status", "--type=merge", "-p", patch)
    labels = ("nvidia.com/gpu.product=FAKE", "nvidia.com/gpu.memory=81920", f"nvidia.com/gpu.count={GPUS}")
    kubectl(places, state, "label", "node", NODE, *labels)
    say(f"node {NODE} is ready, with {GPUS} fake GPUs")


def _succeeds(places: Places, state: State, *arguments: str) -> bool:
    command = [places.programs / "kubectl", f"--kubeconfig={state.kubeconfig}", *arguments]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _dns_is_ready() -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", settings.DNS_READY_PORT)) == 0
