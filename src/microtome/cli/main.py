"""What happens between the shell and a subcommand? It is found, run, and whatever goes wrong becomes one clear line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import microtome
from microtome.cli.atlas import atlas
from microtome.cli.bias import shortcut_share, spotting_bias
from microtome.cli.cam_conversion import cam_conversion
from microtome.cli.explain import explain
from microtome.cli.layers import layers
from microtome.cli.losses import class_residuals, facets_between, rejected
from microtome.cli.maximize import maximize
from microtome.cli.methods import methods
from microtome.cli.reproduce import reproduce
from microtome.cli.run_file import expand
from microtome.cli.spaces import ideal_inputs, invert, invertibility, kept, region, signal_space, spectra
from microtome.cli.train import train
from microtome.cli.units import activations, dissect, top_patches, tuning
from microtome.errors import MicrotomeError

__all__ = ["app", "main", "run"]

app = App(
    name="microtome",
    help="Cut a trained image network open and see what is inside.",
    version=microtome.__version__,
    help_format="markdown",
    result_action="return_value",
)
for _command in (
    atlas, layers, methods, explain, activations, top_patches, tuning, dissect, maximize, train,
    spectra, signal_space, class_residuals, rejected, kept, region, facets_between, invertibility, invert, ideal_inputs,
    cam_conversion, shortcut_share, spotting_bias, reproduce,
):  # fmt: skip
    app.command(_command, name=_command.__name__.replace("_", "-"))


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
    """The parser's message in one line, with where to look."""
    text = " ".join(str(error).split()).split(" Available commands:")[0].rstrip(".")
    end = "" if text.endswith("?") else "."
    return f"{text}{end} `microtome --help` lists the commands, `microtome COMMAND --help` their options."
