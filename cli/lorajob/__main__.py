"""Entry point, and the one place on this side where an error becomes text and an exit code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import click

from lorajob.error_text import print_error
from lorajob.main import cli
from lorajob_runtime.contract.errors import INTERRUPTED, UNEXPECTED, LorajobError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code: 0 done, 1 unexpected, 2 usage, else the run's own."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--debug" not in arguments:
        # what libraries tell their developers about one another is no news to a user
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        result = cli.main(args=list(arguments), prog_name="lorajob", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        print_error(error.format_message(), _usage_hint(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print_error("interrupted")
        return INTERRUPTED.code
    except LorajobError as error:
        if "--debug" in arguments:
            raise
        print_error(error.message, error.hint)
        return error.failure.code
    except Exception as error:
        if "--debug" in arguments:
            raise
        print_error(f"unexpected {type(error).__name__}: {error}", "`lorajob --debug …` shows where; please report it")
        return UNEXPECTED.code
    return result if isinstance(result, int) else 0


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path} --help`" if context is not None else ""


if __name__ == "__main__":
    sys.exit(main())
