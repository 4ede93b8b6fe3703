"""How long do the largest eigenvalues of the loss's Hessian take? 10 of them to 1e-3, against curvlinops 3.0.1.

``python -m benchmarks.curvature [lenet] [mlp]``. Both in float32 on one thread, CPU seconds in turns. The peer's
Hessian is a SciPy operator; ``scipy.sparse.linalg.eigsh`` asks for 10 eigenvalues at the upper end with a tolerance of
1e-3. Ours asks for the same 10 and one at the lower end. The floor is as many products as ours takes, by two calls of
``torch.autograd.grad`` each. "largest difference" is that of the ten from the ten of the peer with a tolerance of 1e-6,
as a share of the largest.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from benchmarks import turns
from benchmarks.landscape import lenet
from microtome import Network, data, training

IMAGES = 500
K = 10
INSTALL = (
    "pip install --no-deps curvlinops-for-pytorch==3.0.1 backpack-for-pytorch einconv einops linear_operator "
    "opt_einsum unfoldNd"
)


def mlp() -> nn.Module:
    """One hidden layer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.Tanh(), nn.Linear(32, 10)).eval()


BUILD = {"lenet": lenet, "mlp": mlp}


def measured(name: str) -> turns.Row:
    """One network, trained for an epoch."""
    curvlinops = turns.peer("curvlinops", INSTALL)
    from scipy.sparse.linalg import eigsh

    digits = data.mnist_5000()
    some = digits.subset(range(0, 5000, 5000 // IMAGES))
    model = BUILD[name]()
    training.fit(model, digits, recipe=training.Recipe(epochs=1, batch=50, lr=0.05))
    model.eval()
    net = Network(model, (1, 28, 28))
    images = torch.stack([some[index][0] for index in range(IMAGES)])
    labels = torch.tensor([some[index][1] for index in range(IMAGES)])
    weights = [parameter.requires_grad_() for parameter in model.parameters()]
    products = {"peer": 0}

    def peer(tolerance: float = 1e-3) -> Any:
        made = curvlinops.HessianLinearOperator(
            model, nn.CrossEntropyLoss(), weights, [(images, labels)], check_deterministic=False
        ).to_scipy()
        apply, products["peer"] = made._matvec, 0

        def counted(vector: object) -> object:
            products["peer"] += 1
            return apply(vector)

        made._matvec = counted
        return eigsh(made, k=K, which="LA", tol=tolerance, return_eigenvectors=False)

    def ours() -> training.HessianEigenvalues:
        return training.curvature.eigenvalues(net, some, k=K, smallest=1, tolerance=1e-3)

    def floor() -> None:
        for _ in range(steps):
            gradient = torch.autograd.grad(
                nn.functional.cross_entropy(model(images), labels), weights, create_graph=True
            )
            torch.autograd.grad(gradient, weights, weights)

    steps = ours().steps
    times = turns.seconds({"ours": ours, "curvlinops 3.0.1": peer, "plain products": floor}, 3)
    taken = products["peer"]
    found = ours()
    exact = torch.as_tensor(peer(1e-6).copy()).double().sort(descending=True).values
    size = sum(weight.numel() for weight in weights)
    row = turns.row(f"{K} eigenvalues to 1e-3, {IMAGES} images", name, times, "plain products", {})
    row |= {"weights": size, "products, ours": found.steps, "products, peer": taken}
    row["largest difference"] = float(f"{float((found.values - exact).abs().max() / exact[0]):.2g}")
    return row


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    for name in turns.chosen(sys.argv[1:], list(BUILD)):
        row = measured(name)
        print(row)
        turns.keep("curvature.json", [row])


if __name__ == "__main__":
    main()
