"""`python -m cluster up` prints a kubeconfig's path, `image` an image's name; `down [--purge]` ends it all."""

from __future__ import annotations

import argparse
import sys

from cluster import builder, lifecycle, places
from cluster.running import ClusterError, say


def main() -> int:
    """Does what was asked. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="bring a cluster up, if it is not, and print its kubeconfig's path")
    up.add_argument("--api-only", action="store_true", help="etcd and the API server only, beside any other cluster")
    down = verbs.add_parser("down", help="take every cluster down")
    down.add_argument("--purge", action="store_true", help="remove built programs and images too")
    verbs.add_parser("image", help="build a run's image, bring it into the cluster and print its name")
    options = parser.parse_args()
    here = places.default()
    try:
        if options.verb == "down":
            lifecycle.purge(here) if options.purge else _down(here)
        elif options.verb == "image":
            lifecycle.up(here)
            print(builder.ensure(here, here.full))
        elif options.api_only:
            lifecycle.up_api_only(here)
            print(here.api_only.kubeconfig)
        else:
            lifecycle.up(here)
            print(here.full.kubeconfig)
    except ClusterError as error:
        say(str(error))
        return 1
    return 0


def _down(here: places.Places) -> None:
    lifecycle.down(here)
    lifecycle.down_api_only(here)


if __name__ == "__main__":
    sys.exit(main())
