"""Are we equal to captum, zennit, grad-cam and torchcam where those are right? On networks of modules, in float64."""

from __future__ import annotations

import pytest
import torch
from benchmarks import conformance

from conformance.spellings import SPELLINGS, weights

PLAIN = ["ReluModules", "InSequence", "AveragePoolModule"]  # what every peer supports


@pytest.mark.parametrize("spelled", PLAIN)
@pytest.mark.parametrize(
    ("title", "peer"),
    [(title, peer) for title, (_, made) in conformance.METHODS.items() for peer in made if peer != "microtome"],
)
def test_equal_to_the_peers(title, peer, spelled):
    """Oracle: another library's own code on hooks; independent of the engine. Tolerance 1e-5 of the largest value."""
    entry = SPELLINGS[spelled]
    method, made = title.partition(" ")[0], conformance.METHODS[title][1]
    images = torch.rand(3, 3, 12, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours, theirs = (
        made[library](method)(entry.build(weights(entry.family, 3)).eval(), entry, images.clone()).detach().double()
        for library in ("microtome", peer)
    )
    assert float(ours.abs().max()) > 0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(ours.abs().max()))


def test_integrated_gradients_and_occlusion_equal_captum():
    """The same quadrature and the same windows where captum offers them."""
    import captum.attr as peer

    from microtome import Network, attribution

    entry = SPELLINGS["ReluModules"]
    model = entry.build(weights("plain", 3)).eval()
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    net = Network(model, (3, 12, 12))
    theirs = peer.IntegratedGradients(model).attribute(images, target=2, n_steps=20, method="gausslegendre")
    ours = attribution.integrated_gradients(net, images, 2, steps=20)
    slack = 1e-5 * float(theirs.abs().max())  # captum's nodes are float32
    torch.testing.assert_close(ours.values, theirs, rtol=0, atol=slack)
    covered = attribution.occlusion(net, images, 2, window=4, stride=4, fill=0.25)
    drop = peer.Occlusion(model).attribute(images, (3, 4, 4), strides=(3, 4, 4), baselines=0.25, target=2)
    ours_drop = (covered.score[:, None, None] - covered.logit).repeat_interleave(4, 1).repeat_interleave(4, 2)
    slack = 1e-5 * float(drop.abs().max())  # captum hands over float32
    torch.testing.assert_close(ours_drop, drop[:, 0].double(), rtol=0, atol=slack)
