"""A TOML run file instead of options; options on the command line take precedence."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from microtome.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["expand", "read"]


def expand(tokens: Sequence[str]) -> list[str]:
    """Put the options of a TOML run file in the place of its name.

    ``microtome atlas run.toml --budget full`` takes all options from the file but ``--budget``.
    """
    remaining = list(tokens)
    if len(remaining) < 2 or remaining[0].startswith("-"):
        return remaining
    files = [token for token in remaining[1:2] if token.endswith(".toml")]
    if not files:
        return remaining
    rest = remaining[2:]
    typed = {token.partition("=")[0] for token in rest if token.startswith("--")}
    options = [(f"--{key.replace('_', '-')}", value) for key, value in read(Path(files[0])).items()]
    taken = [token for name, value in options if name not in typed for token in (name, _text(name, value))]
    return [remaining[0], *taken, *rest]


def read(path: Path) -> dict[str, Any]:
    """The options of a run file.

    Raises
    ------
    InputError
        The file is missing, is no TOML, or holds tables.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is no text in UTF-8"
        raise InputError(f"the run file {path} cannot be read: {why}.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the run file {path} is no TOML: {error}.") from error


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_text(name, item) for item in value)
    if isinstance(value, dict | bool):
        raise InputError(f"{name.removeprefix('--')} in the run file takes text, a number or a list of them.")
    return str(value)
