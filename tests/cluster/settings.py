"""The configuration files of the cluster's parts, as text."""

from __future__ import annotations

import json

from cluster.debian import NETWORK_PLUGINS
from cluster.places import BRIDGE, HOST_IP, NETWORK, POD_NETWORK, Places, State

PAUSE_IMAGE = "localhost/pause:1"


def containerd(places: Places, state: State) -> str:
    # without CAP_SYS_RESOURCE nobody may lower a process's oom_score_adj, and no container would start
    return f"""version = 2
root = "{places.containers}"
state = "{state.containerd_state}"
[grpc]
  address = "{state.containerd_socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{places.containers}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{NETWORK_PLUGINS}"
    conf_dir = "{state.folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def pod_network(state: State) -> str:
    # no masquerade and no way out: a pod reaches other pods, Services and this machine, and nothing else
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_NETWORK}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{state.folder}/addresses",
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": addresses}
    return json.dumps({"cniVersion": "0.4.0", "name": NETWORK, "plugins": [bridge]}, indent=1)


def kubelet(state: State) -> str:
    pki = state.certificates
    # The kubelet takes cgroups as it finds them, v1 too. Nothing is evicted or collected before the disk is full:
    # images that tests use were loaded, and could not be pulled again.
    return f"""apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {HOST_IP}
containerRuntimeEndpoint: unix://{state.containerd_socket}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
clusterDNS: [{HOST_IP}]
clusterDomain: cluster.local
resolvConf: {state.folder}/resolv.conf
podLogsDir: {state.pod_logs}
volumePluginDir: {state.folder}/volume-plugins
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: false}}, x509: {{clientCAFile: {pki}/ca.crt}}}}
authorization: {{mode: AlwaysAllow}}
tlsCertFile: {pki}/kubelet.crt
tlsPrivateKeyFile: {pki}/kubelet.key
evictionHard: {{nodefs.available: "1%", imagefs.available: "1%", memory.available: 100Mi}}
imageGCHighThresholdPercent: 100
serializeImagePulls: false
shutdownGracePeriod: 0s
"""


DNS_READY_PORT = 18181


def dns(state: State) -> str:
    # 30 s, as clusters have it
    return f""". {{
  bind {HOST_IP}
  errors
  ready 127.0.0.1:{DNS_READY_PORT}
  cache 30
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {state.kubeconfig}
    ttl 30
  }}
}}
"""


STORAGE_CLASS = """apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: lorajob.test/folder
volumeBindingMode: WaitForFirstConsumer
"""
