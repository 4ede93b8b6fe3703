"""Reconstructions of large patches are seen: signs do not cancel and one strong pixel does not hide all others."""

from __future__ import annotations

import torch

from microtome.figures.units.reconstruction_figures import _about_gray


def test_neighbours_of_both_signs_do_not_cancel() -> None:
    signs = (-1.0) ** torch.arange(200)
    drawn = _about_gray((signs[:, None] * signs[None, :])[None])
    assert max(drawn.shape[1:]) <= 80
    assert (drawn - 0.5).abs().min() == 0.5


def test_a_few_strong_pixels_do_not_hide_the_others() -> None:
    signal = torch.full((3, 20, 20), 0.01)
    signal[:, 3, 4] = -5.0
    drawn = _about_gray(signal)
    assert drawn[0, 0, 0] == 1.0
    assert drawn[0, 3, 4] == 0.0


def test_nothing_is_mid_gray() -> None:
    assert (_about_gray(torch.zeros(1, 90, 7)) == 0.5).all()
