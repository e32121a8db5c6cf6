"""Which cluster a kubeconfig means, and who asks: as kubectl reads it."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from lorajob import main
from lorajob.cluster import Unauthenticated, connect
from lorajob.cluster.access import Access, in_cluster
from lorajob.cluster.kubeconfig import find
from lorajob.cluster.proxy import bypasses, choose
from lorajob.errors import UsageError
from lorajob.options.cluster_options import timeout

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def _config(**changes: Any) -> dict[str, Any]:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "dev",
        "contexts": [{"name": "dev", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://one.example:6443/"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }
    return config | {key.replace("_", "-"): value for key, value in changes.items()}


def _user(**values: Any) -> dict[str, Any]:
    return _config(users=[{"name": "u", "user": {key.replace("_", "-"): value for key, value in values.items()}}])


def _cluster(**values: Any) -> dict[str, Any]:
    named = {key.replace("_", "-"): value for key, value in values.items()}
    return _config(clusters=[{"name": "c", "cluster": {"server": "https://one.example"} | named}])


def _write(path: Path, config: object) -> str:
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return str(path)


def _find(tmp_path: Path, config: object, **given: Any) -> Access:
    return find(_write(tmp_path / "config", config), variables={}, **given)


def test_the_current_context_says_server_namespace_and_user(tmp_path: Path) -> None:
    access = _find(tmp_path, _config())

    assert (access.server, access.namespace, access.bearer()) == ("https://one.example:6443", "team", "secret")
    assert access.source == f"context dev of {tmp_path / 'config'}"


def test_a_namespace_that_is_given_wins_and_without_any_it_is_default(tmp_path: Path) -> None:
    plain = _config(contexts=[{"name": "dev", "context": {"cluster": "c", "user": "u"}}])

    assert _find(tmp_path, _config(), namespace="other").namespace == "other"
    assert _find(tmp_path, plain).namespace == "default"


def test_it_reads_yaml_as_kubectl_writes_it(tmp_path: Path) -> None:
    text = """\
apiVersion: v1
clusters:
- cluster:
    insecure-skip-tls-verify: true
    server: https://one.example
  name: c
contexts:
- context: {cluster: c, user: u}
  name: arn:aws:eks:eu-central-1:123456789012:cluster/c
current-context: arn:aws:eks:eu-central-1:123456789012:cluster/c
kind: Config
preferences: {}
users:
- name: u
  user: {}
"""
    access = _find(tmp_path, text)

    assert access.insecure
    assert access.context == "arn:aws:eks:eu-central-1:123456789012:cluster/c"


def test_of_several_files_the_first_that_says_something_counts(tmp_path: Path) -> None:
    first = _write(tmp_path / "a", {"clusters": [{"name": "c", "cluster": {"server": "https://first.example"}}]})
    second = _write(tmp_path / "b", _config(users=None))
    third = _write(tmp_path / "c", _config(current_context="other"))
    missing = str(tmp_path / "missing")

    access = find(variables={"KUBECONFIG": os.pathsep.join([missing, first, "", second, third])})

    assert access.server == "https://first.example"
    assert access.context == "dev"
    assert access.token == "secret"


def test_the_flag_wins_over_the_variable_and_that_over_the_home_folder(tmp_path: Path) -> None:
    def named(name: str) -> dict[str, Any]:
        return _config(clusters=[{"name": "c", "cluster": {"server": f"https://{name}.example"}}])

    (tmp_path / ".kube").mkdir()
    _write(tmp_path / ".kube/config", named("home"))
    variables = {"HOME": str(tmp_path)}

    assert find(variables=variables).server == "https://home.example"
    variables["KUBECONFIG"] = _write(tmp_path / "variable", named("variable"))
    assert find(variables=variables).server == "https://variable.example"
    flag = _write(tmp_path / "flag", named("flag"))
    assert find(flag, variables=variables).server == "https://flag.example"


def test_files_named_in_a_kubeconfig_lie_beside_it_and_data_in_it_is_base64(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki/ca.pem").write_text(PEM)
    (tmp_path / "pki/token").write_text("from a file\n")
    data = base64.b64encode(PEM.encode()).decode()
    config = _config(
        clusters=[{"name": "c", "cluster": {"server": "https://x", "certificate-authority": "pki/ca.pem"}}],
        users=[{"name": "u", "user": {"tokenFile": "pki/token", "client-certificate-data": data}}],
    )

    access = _find(tmp_path, config)

    assert access.authority == PEM
    assert access.bearer() == "from a file"
    assert access.client_certificate == PEM


def test_every_other_setting_of_a_cluster_and_a_user_is_followed(tmp_path: Path) -> None:
    access = _find(tmp_path, _cluster(tls_server_name="inside", proxy_url="http://proxy:3128"))
    user = _user(**{"username": "jane", "password": "word", "as": "root", "as_groups": ["a", "b"], "as_uid": "7"})
    other = _find(tmp_path, user | {"clusters": _config()["clusters"]})

    assert (access.tls_server_name, access.proxy) == ("inside", "http://proxy:3128")
    assert other.basic == ("jane", "word")
    assert other.impersonate == (
        ("Impersonate-User", "root"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
    )


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (_config(), {"context": "prod"}, "context 'prod' is not in"),
        (_config(current_context=""), {}, "has no current-context"),
        (_config(clusters=None), {}, "context dev names the cluster 'c', which"),
        (_config(users=[]), {}, "context dev names the user 'u', which"),
        (_config(contexts=[{"name": "dev", "context": {"user": "u"}}]), {}, "context dev names no cluster"),
        (_config(contexts={"dev": {}}), {}, "contexts must be a list"),
        (_config(users=[{"user": {}}]), {}, "every entry of users must have a name"),
        (_user(token=1234), {}, "token of user u must be text; put it in quotes"),
        (_user(client_certificate="missing.pem"), {}, "client-certificate of user u: No such file"),
        (_user(client_certificate_data="%%%"), {}, "client-certificate of user u is not a PEM text"),
        (_user(exec="aws"), {}, "exec of user u must be a mapping"),
        (_config(clusters=[{"name": "c", "cluster": {"server": "one.example"}}]), {}, "it must be https://HOST:PORT"),
        (
            _config(clusters=[{"name": "c", "cluster": {"server": "https://10.88.0.1:abc"}}]),
            {},
            "it must be https://HOST:PORT",
        ),
        (
            _config(clusters=[{"name": "c", "cluster": {"server": "https://one.example:99999"}}]),
            {},
            "it must be https://HOST:PORT",
        ),
        (_config(clusters=[{"name": "c", "cluster": {"server": "https://[::1"}}]), {}, "it must be https://HOST:PORT"),
        (_config(clusters=[{"name": "c", "cluster": {"server": "https://:6443"}}]), {}, "it must be https://HOST:PORT"),
        ("a: 1\nb: ]\n", {}, "config:2 is not YAML"),
        ("- a", {}, "is not a kubeconfig"),
    ],
)
def test_what_is_wrong_in_a_kubeconfig_is_one_line_that_names_it(
    tmp_path: Path, config: object, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        _find(tmp_path, config, **given)

    assert message in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert caught.value.failure.code == 2


def test_an_unknown_context_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _find(tmp_path, _config(), context="prod")

    assert caught.value.hint == "the contexts there are: dev"


def test_without_any_kubeconfig_the_error_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"no cluster is configured: no kubeconfig at {tmp_path}/.kube/config"):
        find(variables={"HOME": str(tmp_path)})
    with pytest.raises(UsageError, match="does not exist"):
        find(str(tmp_path / "missing"), variables={})
    empty = _write(tmp_path / "empty", "")
    with pytest.raises(UsageError, match="no cluster is configured: empty kubeconfig"):
        find(empty, variables={})


def test_a_certificate_that_is_none_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    data = base64.b64encode(PEM.encode()).decode()
    wrong_authority = _write(tmp_path / "a", _cluster(certificate_authority_data=data))
    wrong_certificate = _write(tmp_path / "b", _user(client_certificate_data=data, client_key_data=data))
    no_key = _write(tmp_path / "c", _user(client_certificate_data=data))

    for path, message in (
        (wrong_authority, "certificate-authority holds no certificate"),
        (wrong_certificate, "client-certificate and client-key can't be used"),
        (no_key, "a client-certificate and no client-key"),
    ):
        with pytest.raises(UsageError, match=message):
            connect(path).get("/version")


def _service_account(folder: Path) -> dict[str, str]:
    for name, text in (("token", "pod token"), ("ca.crt", PEM), ("namespace", "team")):
        (folder / name).write_text(text)
    return {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_in_a_pod_its_service_account_says_everything(tmp_path: Path) -> None:
    variables = _service_account(tmp_path)

    access = in_cluster(variables, tmp_path)
    elsewhere = in_cluster(variables | {"KUBERNETES_SERVICE_HOST": "fd00::1"}, tmp_path, namespace="other")

    assert access is not None
    assert (access.server, access.namespace, access.bearer()) == ("https://10.0.0.1:443", "team", "pod token")
    assert access.authority == PEM
    assert elsewhere is not None
    assert (elsewhere.server, elsewhere.namespace) == ("https://[fd00::1]:443", "other")


def test_in_a_pod_a_kubeconfig_wins_and_without_one_the_service_account_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = _service_account(tmp_path) | {"HOME": str(tmp_path)}
    monkeypatch.setattr("lorajob.cluster.access.in_cluster.__defaults__", (None, tmp_path))

    assert find(variables=variables).source == "the pod's service account"
    variables["KUBECONFIG"] = _write(tmp_path / "config", _config())
    assert find(variables=variables).context == "dev"


def test_outside_of_a_pod_there_is_no_service_account(tmp_path: Path) -> None:
    assert in_cluster({}, tmp_path) is None
    assert in_cluster({"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"}, tmp_path) is None


def _plugin(tmp_path: Path, script: str) -> dict[str, Any]:
    path = tmp_path / "login"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(stat.S_IRWXU)
    return {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path), "interactiveMode": "Never"}


ANSWER = """\
import json, os
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
token = os.environ["GREETING"] + " to " + asked["spec"]["cluster"]["server"]
print(json.dumps({"apiVersion": asked["apiVersion"], "kind": "ExecCredential", "status": {"token": token}}))
"""


def test_a_login_by_another_program_runs_it_with_what_it_needs(tmp_path: Path) -> None:
    from lorajob.cluster.logins import log_in

    plugin = _plugin(tmp_path, ANSWER) | {"env": [{"name": "GREETING", "value": "hello"}], "provideClusterInfo": True}
    access = _find(tmp_path, _user(exec=plugin))

    assert access.login is not None
    assert log_in(access.login).token == "hello to https://one.example:6443/"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit('session expired, run aws sso login')", "session expired, run aws sso login"),
        ("print('{')", "failed to decode process output"),
        ("print('{}')", "malformed response"),
    ],
)
def test_a_login_that_fails_is_told_in_the_words_of_its_program(tmp_path: Path, script: str, message: str) -> None:
    path = _write(tmp_path / "config", _user(exec=_plugin(tmp_path, script)))

    with pytest.raises(Unauthenticated, match=f"the login of user u by .*login failed.*{message}") as caught:
        connect(path).get("/version")

    assert caught.value.failure.code == 13


def test_a_login_program_that_is_not_installed_is_told_with_how_to_install_it(tmp_path: Path) -> None:
    missing = {"apiVersion": "client.authentication.k8s.io/v1", "command": "gke-auth", "installHint": "see gke docs"}
    path = _write(tmp_path / "config", _user(exec=missing))

    with pytest.raises(Unauthenticated, match="gke-auth") as caught:
        connect(path).get("/version")

    assert caught.value.hint == "see gke docs"


def test_an_oidc_token_that_is_still_good_is_taken_as_it_is(tmp_path: Path) -> None:
    from lorajob.cluster.logins import log_in

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    token = f"{part({'alg': 'none'})}.{part({'exp': 4102444800, 'x': 'yz'})}.sig"
    access = _find(tmp_path, _user(auth_provider={"name": "oidc", "config": {"id-token": token}}))

    assert access.login is not None
    assert log_in(access.login).token == token


def test_a_static_token_needs_no_login(tmp_path: Path) -> None:
    assert _find(tmp_path, _user(token="static", exec={"command": "never"})).login is None


@pytest.mark.parametrize(
    ("host", "excepted", "is_excepted"),
    [
        ("localhost", "", True),
        ("127.0.0.1", "", True),
        ("k8s.example.com", "", False),
        ("k8s.example.com", "example.com", True),
        ("k8s.example.com", ".example.com, other", True),
        ("example.com", ".example.com", False),
        ("notexample.com", "example.com", False),
        ("k8s.example.com", "*.example.com", True),
        ("k8s.example.com", "*", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("k8s.example.com", "k8s.example.com:6443", True),
        ("k8s.example.com", "k8s.example.com:443", False),
    ],
)
def test_no_proxy_excepts_names_networks_and_ports(host: str, excepted: str, is_excepted: bool) -> None:
    assert bypasses(host, 6443, excepted) is is_excepted


def test_the_proxy_is_that_of_the_kubeconfig_else_of_the_environment() -> None:
    variables = {"HTTPS_PROXY": "http://user:p%40ss@proxy:3128", "NO_PROXY": "10.0.0.0/8"}

    chosen = choose("https://k8s.example.com:6443", None, variables)
    named = choose("https://10.0.0.1:6443", "http://special:8080", variables)

    assert chosen is not None
    assert (chosen.host, chosen.port, chosen.password) == ("proxy", 3128, "p@ss")
    assert named is not None
    assert named.host == "special"
    assert choose("https://10.0.0.1:6443", None, variables) is None
    assert choose("https://k8s.example.com", None, {}) is None


def test_a_kind_of_proxy_that_is_not_spoken_is_refused_without_showing_its_password() -> None:
    with pytest.raises(UsageError, match="the kubeconfig's proxy-url is a socks5 proxy") as caught:
        choose("https://k8s.example.com", "socks5://user:word@proxy:1080", {})

    assert "word" not in caught.value.message


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("45", 45), ("0", None)])
def test_a_request_timeout_is_written_as_for_kubectl(text: str, seconds: float | None) -> None:
    assert timeout(text) == seconds


def test_a_request_timeout_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="--request-timeout is 'soon': it must be like 30s"):
        timeout("soon")


def test_a_shell_completes_the_contexts_of_the_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = [{"name": name, "context": {"cluster": "c"}} for name in ("dev", "dev-2", "prod")]
    path = _write(tmp_path / "config", _config(contexts=contexts))
    monkeypatch.setenv("KUBECONFIG", path)
    command = main.cli.get_command(click.Context(main.cli), "list")
    assert command is not None

    completion = ShellComplete(command, {}, "lorajob", "_LORAJOB_COMPLETE")

    assert [item.value for item in completion.get_completions(["--context"], "d")] == ["dev", "dev-2"]
