"""`lorajob submit`."""

from __future__ import annotations

import random
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from lorajob.cluster import Cluster
from lorajob.errors import USAGE, UsageError
from lorajob.options import flags
from lorajob.options.cluster_options import cluster_options, connect_from, platform_option
from lorajob.options.command import Command
from lorajob.plan import plan_text
from lorajob.platform import platform_lookup
from lorajob.platform.quantities import seconds
from lorajob.spec import resolve
from lorajob.submit import preview, submission
from lorajob.submit.preview import Preview
from lorajob.submit.submission import Prepared
from lorajob_runtime.contract.errors import INTERRUPTED, SUCCEEDED

FORMS = ("text", "json", "yaml", "name")


@click.command(
    "submit",
    cls=Command,
    examples=[
        "lorajob submit --model qwen3-8b --gpus 4 --data huanhuan.json --name zhenhuan --watch",
        "lorajob submit -f lorajob.yaml --set train.maxSteps=8 --dry-run=server",
        "lorajob submit -m smollm2-135m -d s3://datasets/law.jsonl --wait --wait-timeout 2h -o json",
    ],
    params=flags.options(command="submit"),
)
@flags.files_option
@flags.settings_option
@flags.option(
    "--dry-run",
    section="Run",
    type=click.Choice(["client", "server"]),
    help="client: print the manifests that would be sent; server: let the cluster check them without creating them.",
)
@flags.option(
    "--wait",
    section="Run",
    is_flag=True,
    help="Wait for the run's end: exit code 0, 100 failed, 103 cancelled; 130 after Ctrl-C.",
)
@flags.option("--watch", section="Run", is_flag=True, help="Follow the run until it ends; Ctrl-C does not stop it.")
@flags.option(
    "--wait-timeout", section="Run", metavar="TIME", help="Longest time to wait, like 90m; then exit code 124."
)
@flags.option("-y", "--yes", section="Run", is_flag=True, help="Don't ask for confirmation.")
@flags.option(
    "-o",
    "--output",
    "output_form",
    section="Run",
    type=click.Choice(FORMS),
    default=FORMS[0],
    help="text: what to do next; json, yaml: the run, or with --dry-run the manifests; name: the run's name. [text]",
)
@platform_option
@cluster_options
@click.pass_context
def command(
    context: click.Context,
    /,
    files: Sequence[Path],
    settings: Sequence[str],
    dry_run: str | None,
    wait: bool,
    watch: bool,
    wait_timeout: str | None,
    yes: bool,
    output_form: str,
    platform_file: Path | None,
    **params: Any,
) -> int:
    """Train an adapter in a Kubernetes cluster.

    Prints the plan, then creates a Job that downloads the weights, trains, and uploads every checkpoint and the
    adapter to storage. What no flag sets comes from ./lorajob.yaml, then from the platform, then from the model's
    recipe.
    """
    limit = seconds(wait_timeout, "--wait-timeout") if wait_timeout else None
    only_prints = dry_run == "client" and platform_lookup.named_file(platform_file) is not None
    with _connection(params, is_needed=not only_prints) as cluster:
        loaded = platform_lookup.load(cluster, platform_file)
        resolved = resolve.resolve(files, flags.given(context), settings, defaults=loaded.platform.defaults)
        namespace = cluster.namespace if cluster is not None else params["namespace"] or "default"
        prepared = submission.prepare(resolved.spec, loaded.platform, namespace=namespace, rng=random.SystemRandom())
        _print_plan(prepared, cluster, loaded.source, resolved.files)
        if cluster is None or dry_run is not None:
            _dry_run(prepared, cluster if dry_run == "server" else None, output_form)
            return SUCCEEDED.code
        if prepared.spec.data.source is None and not yes and not _agrees():
            click.echo("nothing was submitted", err=True)
            return USAGE.code
        if submission.upload(prepared, cluster):
            click.echo(f"uploaded {prepared.data_address}", err=True)
        job = submission.create(cluster, prepared.manifests)[0]
        if wait or watch:
            return _wait(cluster, prepared.spec.run_name, limit, is_shown=watch, form=output_form)
        if output_form == "text":
            for line in next_lines(prepared.spec.run_name, _target(params)):
                click.echo(line)
        else:
            _print_run(cluster, job, output_form)
    return SUCCEEDED.code


def _connection(params: Mapping[str, Any], *, is_needed: bool) -> AbstractContextManager[Cluster | None]:
    """The cluster; where none is needed and none is configured, None. Raises UsageError."""
    try:
        return connect_from(params)
    except UsageError:
        if is_needed or params["kubeconfig"] or params["kube_context"]:
            raise
        return nullcontext()


def _print_plan(prepared: Prepared, cluster: Cluster | None, source: str, files: Sequence[Path]) -> None:
    plan = Preview(
        spec=prepared.spec,
        platform=prepared.platform,
        plan=prepared.plan,
        job=prepared.manifests.job,
        local=prepared.local,
        uploaded_to=prepared.data_address,
        place=f"{cluster.server} ({cluster.source})" if cluster is not None else "none: nothing is sent",
        platform_source=source,
        files=tuple(map(str, files)),
    )
    for line in preview.lines(plan):
        click.echo(line, err=True)
    for warning in plan_text.warnings(prepared.plan):
        click.echo(click.style("warning: ", fg="yellow") + warning, err=True)


def _agrees() -> bool:
    """Whether GPUs may be spent on example data; nobody is asked where nobody sits."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    return click.confirm("No dataset is given: train on the example set?", default=False, err=True)


def _dry_run(prepared: Prepared, cluster: Cluster | None, form: str) -> None:
    """Prints the manifests; with a cluster, what that makes of them."""
    objects = prepared.manifests.all()
    if cluster is not None:
        objects = submission.create(cluster, prepared.manifests, dry_run=True)
    if form == "name" or (form == "text" and cluster is not None):
        for each in objects:
            said = "" if form == "name" or cluster is None else f" accepted by {cluster.server}; nothing was created"
            click.echo(f"{each['kind'].lower()}/{each['metadata']['name']}{said}")
    else:
        click.echo(preview.manifests_text(objects, "json" if form == "json" else "yaml"), nl=False)


def next_lines(name: str, target: str) -> list[str]:
    """What is printed after a submit: the commands to use next, with the cluster that they are for."""
    return [
        f"run {name} submitted",
        f"next:  lorajob watch {name}{target}     follows it",
        f"       lorajob logs {name} -f{target}   shows its log",
        f"       lorajob cancel {name}{target}    stops it; its checkpoints stay",
    ]


def _target(params: Mapping[str, Any]) -> str:
    """The options that lead another command to the same cluster and namespace."""
    given = (("-n", params["namespace"]), ("--context", params["kube_context"]), ("--kubeconfig", params["kubeconfig"]))
    return "".join(f" {flag} {shlex.quote(value)}" for flag, value in given if value)


def _print_run(cluster: Cluster, job: Mapping[str, Any], form: str) -> None:
    """The run as a program reads it."""
    if form == "name":
        click.echo(job["metadata"]["name"])
        return
    from lorajob import tables
    from lorajob.runs import document, status  # a submit that only creates does without them

    click.echo(tables.document(document.to_dict(status.from_job(job, cluster.now())), form), nl=False)


def _wait(cluster: Cluster, name: str, limit: int | None, *, is_shown: bool, form: str) -> int:
    """Waits for the end of a run. Returns the exit code of how it ended; Ctrl-C leaves the run alone.

    For one that only waits, Ctrl-C is no success: `submit --wait && next` must not take it for one.
    """
    from lorajob import tables
    from lorajob.runs import document, follow, live, page

    try:
        live.say(f"run {name} submitted; Ctrl-C does not stop it")
        if is_shown:
            return live.watch(cluster, name, form="json" if form == "json" else "table", timeout_seconds=limit)
        ended = follow.wait_for_end(cluster, name, timeout_seconds=limit, say=live.say)
    except KeyboardInterrupt:
        live.say(f"detached: run {name} keeps running; `lorajob watch {name}` shows it")
        return SUCCEEDED.code if is_shown else INTERRUPTED.code
    if form == "name":
        click.echo(name)
    elif form == "text":
        tables.show([f"{cluster.now():%H:%M:%S} {page.line(ended)}", *live.closing_lines(ended)])
    else:
        click.echo(tables.document(document.to_dict(ended), form), nl=False)
    return follow.exit_code_of(ended)
