"""What happens between the shell and a subcommand? It is found, run, and whatever goes wrong becomes one clear line."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, UnknownCommandError, UnknownOptionError

import microtome
from microtome.errors import MicrotomeError

__all__ = ["app", "main", "run"]

app = App(
    name="microtome",
    help="Cut a trained image network open and see what is inside.",
    version=microtome.__version__,
    help_format="markdown",
    result_action="return_value",
)
# Imported only when called, so that `microtome --help` does not wait for torch's slower parts.
_COMMANDS = {
    "atlas": "microtome.cli.atlas:atlas",
    "layers": "microtome.cli.layers:layers",
    "methods": "microtome.cli.methods:methods",
    "explain": "microtome.cli.explain:explain",
    "activations": "microtome.cli.units:activations",
    "top-patches": "microtome.cli.units:top_patches",
    "tuning": "microtome.cli.units:tuning",
    "dissect": "microtome.cli.units:dissect",
    "maximize": "microtome.cli.maximize:maximize",
    "train": "microtome.cli.train:train",
}
for _name, _path in _COMMANDS.items():
    app.command(_path, name=_name)


def main() -> None:
    """Entry point of the ``microtome`` command."""
    sys.exit(run(sys.argv[1:]))


def run(tokens: Sequence[str]) -> int:
    """Run one command line; returns its exit status: 0, 2 for what the user can mend, 130 when interrupted.

    Examples
    --------
    >>> run(["--version"])  # doctest: +ELLIPSIS
    0...
    0
    """
    from microtome.cli.run_file import expand

    try:
        app(expand(tokens), exit_on_error=False, print_error=False, result_action="return_value")
    except MicrotomeError as error:
        return _fail(str(error))
    except CycloptsError as error:
        return _fail(_plain(error))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted.\n")
        return 130
    except BrokenPipeError:  # the reader of our output has left, as in `microtome layers | head`
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MemoryError) as error:
        return _fail(f"{type(error).__name__}: {error}")
    return 0


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {message}\n")
    return 2


def _plain(error: CycloptsError) -> str:
    """The parser's message in one line, with the nearest name where one was misspelt."""
    text = " ".join(str(error).split())
    if isinstance(error, UnknownCommandError | UnknownOptionError) and "Did you mean" not in text:
        given = error.token.keyword or error.token.value if isinstance(error, UnknownOptionError) else ""
        near = difflib.get_close_matches(given or "", _COMMANDS, n=1)
        text += f" Did you mean {near[0]}?" if near else ""
    return f"{text.rstrip('.')}. `microtome --help` lists the commands, `microtome COMMAND --help` the options."
