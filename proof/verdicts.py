"""The verdict on one check: right, refused by name, wrong, blamed on the model, crash, or nothing to compare with."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from microtome.errors import MicrotomeError, ModelError
from proof.checks import CHECKS
from proof.plain import scores_in
from proof.subject import NotCompared, Subject, Wrong

RIGHT, REFUSED, WRONG, BLAMED, CRASH = "right", "refused", "wrong", "blamed", "crash"
NO_ANSWER = "no answer exists"  # plain PyTorch raises, too
NOT_COMPARED, OUT_OF_TIME = "not compared", "out of time"
PENDING = "to be run again"  # was not right; the library or the check has been changed since
# Checks that use gradients or quotients of small numbers.
_OF_SLOPES = [CHECKS[name] for name in ("gradient", "guided", "relevance", "batch")]
VERDICTS = (RIGHT, REFUSED, WRONG, BLAMED, CRASH, NO_ANSWER, NOT_COMPARED, OUT_OF_TIME, PENDING)


def verdict(check: Callable[[Subject], str], subject: Subject) -> dict[str, Any]:
    """Run one check. The model has run in plain PyTorch, so an error that blames the model is a separate verdict."""
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = RIGHT, check(subject)
    except NotCompared as why:
        found = NOT_COMPARED, str(why)
    except Wrong as why:
        found = WRONG, str(why)
        if check in _OF_SLOPES and subject.by_rounding():
            found = NOT_COMPARED, f"the score depends on the image by rounding alone ({why})"
    except ModelError as error:
        found = (BLAMED if _runs(subject) else NO_ANSWER), str(error)
    except MicrotomeError as error:
        found = REFUSED, f"{type(error).__name__}: {error}"
    except MemoryError as error:
        found = OUT_OF_TIME, f"the limit of memory: {error}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        inside = "src/microtome" in "".join(traceback.format_tb(error.__traceback__))
        kind = OUT_OF_TIME if "allocate memory" in str(error) else CRASH if inside else NOT_COMPARED
        found = kind, f"{type(error).__name__}: {error} ({place.name}:{place.lineno})"
    return {"verdict": found[0], "detail": found[1][:400], "seconds": round(time.process_time() - start, 2)}


def _runs(subject: Subject) -> bool:
    """Whether plain PyTorch differentiates the model as it runs, so that an error is not the model's."""
    try:
        x = subject.images.clone().requires_grad_()
        scores = scores_in(subject.plain.model(x), len(x))
        return bool(torch.isfinite(torch.autograd.grad(scores.sum(), x)[0]).all())
    except Exception:
        return False


def examine(
    subject: Subject, keep: Callable[[dict[str, Any]], None] = lambda _: None, only: Iterable[str] = tuple(CHECKS)
) -> dict[str, Any]:
    """Run some or all checks of one network; ``keep`` is called after each, so that a limit loses only the rest."""
    done: dict[str, Any] = {}
    for name in CHECKS:
        if name in set(only):
            done[name] = verdict(CHECKS[name], subject)
            keep(done)
    return done
