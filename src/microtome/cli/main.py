"""The ``microtome`` command: finds and runs a subcommand, and prints each error as one clear line.

Importing a module of commands does not import torch: help, completion and errors of options must be quick.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter

import microtome
from microtome.cli.output import tell_beside
from microtome.cli.run_file import expand
from microtome.cli.work_line import shown
from microtome.errors import DataWarning, MicrotomeError, ModelWarning, StoreWarning, is_out_of_memory

__all__ = ["app", "main", "run"]

app = App(
    name="microtome",
    help="Cut a trained image network open and see what is inside.",
    version=lambda: microtome.__version__,
    help_format="plaintext",
    result_action="return_value",
    default_parameter=Parameter(negative_iterable=()),  # no --empty-NAME beside each option with several values
)
# By the file that holds them: only the one that runs is imported.
_COMMANDS = {
    "atlas_command": ("atlas",),
    "serve_command": ("serve",),
    "layers_command": ("layers",),
    "methods_command": ("methods",),
    "attribution.explain_command": ("explain",),
    "unit_origin_commands": ("explain_path", "what_where", "natural_filters", "layer_repeats"),
    "unit_commands": ("activations", "top_patches", "reconstruct", "tuning", "dissect"),
    "maximize_command": ("maximize",),
    "credentials_command": ("credentials",),
    "training.train_command": ("train",),
    "training.landscape_command": ("landscape",),
    "training.curvature_command": ("curvature",),
    "spaces.space_commands": ("spectra", "signal_space", "kept", "region", "invertibility", "invert", "ideal_inputs"),
    "spaces.rejection_commands": ("class_residuals", "rejected", "facets_between"),
    "surgery.cam_conversion_command": ("cam_conversion",),
    "surgery.pruning_commands": ("prune", "lossless", "compress", "without", "criteria"),
    "representation_commands": ("map", "cka"),
    "training.information_command": ("information",),
    "training.usable_information_command": ("usable_information",),
    "attribution.bias_commands": ("shortcut_share", "spotting_bias"),
    "attribution.quality_commands": ("evaluate", "randomisation"),
    "reproduce_command": ("reproduce",),
    "hand_net_command": ("hand_net",),
    "completion_command": ("completion",),
}
_TELLS_ITSELF = ("atlas", "train", "serve")  # commands that show their work in their own way
for _file, _functions in _COMMANDS.items():
    for _function in _functions:
        app.command(f"microtome.cli.commands.{_file}:{_function}", name=_function.replace("_", "-"))


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
        _describe(tokens)
        own = tokens[:1] and tokens[0] in _TELLS_ITSELF
        with _plain_warnings(), contextlib.nullcontext() if own else shown(sys.stderr):
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
    except OSError as error:
        return _fail(f"{type(error).__name__}: {error}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _fail("there is not enough memory. Give smaller or fewer images, or a smaller part of the network.")
    return 0


def _describe(tokens: Sequence[str]) -> None:
    """Set the help of the command that runs (of all commands for the list): its docstring with lines joined."""
    known = [name for name in app if not name.startswith("-")]
    first = tokens[0] if tokens else ""
    for name in [first] if first in known else known if first in ("", "--help", "-h") else []:
        text = inspect.getdoc(app[name].default_command) or ""
        app[name].help = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Write warnings and notes of Microtome as one line each, once, without the line of code."""
    shown = warnings.showwarning
    emitted: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if issubclass(category, DataWarning | ModelWarning | StoreWarning):
            if str(message) not in emitted:
                tell_beside(f"warning: {message}")
            emitted.add(str(message))
        else:
            shown(message, category, *place, **options)

    notes, handler = logging.getLogger("microtome"), _Notes()
    notes.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        notes.removeHandler(handler)


class _Notes(logging.Handler):
    """Writes each note of the library as a line."""

    def emit(self, record: logging.LogRecord) -> None:
        tell_beside(f"note: {record.getMessage()}")


def _fail(message: str) -> int:
    tell_beside(f"error: {message}")
    return 2


def _plain(error: CycloptsError) -> str:
    """The parser's message in one line, with where to look."""
    text = " ".join(str(error).split()).split(" Available commands:")[0].rstrip(".")
    end = "" if text.endswith("?") else "."
    return f"{text}{end} `microtome --help` lists the commands, `microtome COMMAND --help` their options."
