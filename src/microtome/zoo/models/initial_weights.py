"""Initial weights that depend only on the seed, and the usual initialisation schemes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from microtome.errors import InputError
from microtome.option_types import checks_types

__all__ = ["SCHEMES", "redraw", "seeded"]

_DRAWN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
SCHEMES: dict[str, Callable[[Tensor], object]] = {
    "he": nn.init.kaiming_normal_,
    "glorot": nn.init.xavier_normal_,
    "orthogonal": nn.init.orthogonal_,
    "small": lambda weight: nn.init.normal_(weight, std=0.01),
}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside the context, random numbers come from ``seed`` on the CPU; the outer random state does not change.

    Examples
    --------
    >>> import torch
    >>> before = torch.get_rng_state()
    >>> with seeded(1):
    ...     first = torch.nn.Linear(2, 2).weight
    >>> with seeded(1):
    ...     second = torch.nn.Linear(2, 2).weight
    >>> torch.equal(first, second), torch.equal(before, torch.get_rng_state())
    (True, True)
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@checks_types
def redraw(model: nn.Module, scheme: str, *, seed: int = 0) -> None:
    r"""Redraw the weights of all convolutions and linear layers in place; biases become 0, norms are unchanged.

    Parameters
    ----------
    model
        The network.
    scheme
        ``"he"``: normal with variance :math:`2 / n_{in}` [1]_; ``"glorot"``: :math:`2 / (n_{in} + n_{out})` [2]_;
        ``"orthogonal"``: orthonormal rows or columns [3]_; ``"small"``: a standard deviation of .01.
    seed
        Of the draw.

    Raises
    ------
    InputError
        The scheme is unknown.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun. Delving deep into rectifiers. ICCV 2015.
    .. [2] X. Glorot, Y. Bengio. Understanding the difficulty of training deep feedforward neural networks.
       AISTATS 2010.
    .. [3] A. Saxe, J. McClelland, S. Ganguli. Exact solutions to the nonlinear dynamics of learning in deep linear
       neural networks. ICLR 2014.

    Examples
    --------
    >>> layer = torch.nn.Linear(4, 3)
    >>> redraw(layer, "orthogonal")
    >>> torch.allclose(layer.weight @ layer.weight.T, torch.eye(3), atol=1e-5)
    True
    """
    if scheme not in SCHEMES:
        raise InputError(f'there is no initialisation scheme "{scheme}"; known: {", ".join(SCHEMES)}.')
    with seeded(seed), torch.no_grad():
        for module in model.modules():
            if isinstance(module, _DRAWN):
                SCHEMES[scheme](module.weight)
                if module.bias is not None:
                    module.bias.zero_()
