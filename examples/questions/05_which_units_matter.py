r"""
Which units matter?
===================

The most direct answer is to remove a unit and measure:

.. math:: \Delta_u = \text{accuracy} - \text{accuracy with } f_u := 0 .

The criteria of the literature are cheaper: how much the activation varies over the data, how far the kernel is from
noise, how selective the unit is for a class. Do they predict the loss?
"""

# %%
# The digits network of :doc:`/examples/01_a_first_look`.

import torch

from microtome import Network, data, training, units, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
training.fit(model, train, recipe=recipe, out="runs/digits")
net = Network(model, (1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))

# %%
# The picture
# -----------
# Every unit of the first convolution ablated in turn.

some = test.subset(range(0, 2500, 5))
without = units.ablate(net, some, "conv1")
without.plot()

# %%
# The criteria for the same units, in one table.

criteria = units.criteria(net, some, ["conv1"], columns=["variation", "kernel", "class_selectivity"])
criteria.table()[:8]

# %%
# Does any of them predict the drop? These are the rank correlations with it; with 32 units, chance reaches about
# ±0.35 in one case of twenty.


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks from the middle."""
    order = torch.as_tensor(values, dtype=torch.float64).nan_to_num(0).argsort().argsort().double()
    return order - order.mean()


drop = without.drop
rows = criteria.table()
for column in ("variation", "kernel", "class selectivity"):
    key = next(name for name in rows.columns if name.replace("_", " ").startswith(column))
    one, two = ranks(torch.tensor([float(row[key]) for row in rows])), ranks(drop)
    print(f"{column}: {float((one * two).sum() / (one.norm() * two.norm())):+.2f}")

# %%
# When to believe it
# ------------------
# A drop has a standard error. With n images and an accuracy p it is about the root of p (1 - p) / n; smaller drops are
# noise.

accuracy = without.before
error = (accuracy * (1 - accuracy) / len(some)) ** 0.5
print(f"standard error {error:.1%}; {int((drop > 2 * error).sum())} of {len(drop)} units lose more than twice that")

# %%
# What it cannot show
# -------------------
# - Two units that replace each other: each can be removed alone, but not both together. Ablate groups with
#   ``units=[[3, 7]]``.
# - A unit set to zero gives the next layer inputs that it has never seen. ``value="mean"`` is a milder change.
# - A drop does not say what the unit matters for: ``most_hurt`` names the class.
#
# Methods: :doc:`/methods/ablation`, :doc:`/methods/criteria`, :doc:`/methods/lossless`, :doc:`/methods/prune`. The full
# story: :doc:`/examples/06_pruning_and_handnet`.
