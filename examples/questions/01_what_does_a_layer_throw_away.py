r"""
What does a layer throw away?
=============================

A linear layer or convolution computes :math:`y = W x + b`. It splits every input into two parts,

.. math:: x = x_s + x_r, \qquad W x = W x_s, \qquad W x_r = 0,

the signal part :math:`x_s` in the row space of W, and the rejected part :math:`x_r` in its null space. For a whole
network up to a layer, W is replaced by the Jacobian J at the image, and the exact null space by what makes less
than a share t of the output:

.. math:: x_\text{kept} = \arg\min_k \|k\|^2 \;\text{ with }\; \|J k - J x\| \le t \|J x\|, \qquad t = 1\,\%.
"""

# %%
# The digits network of :doc:`/examples/01_a_first_look`.

from microtome import Network, data, spaces, training, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
training.fit(model, train, recipe=recipe, out="runs/digits")
net = Network(model, (1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))

# %%
# The picture
# -----------
# For one digit: the part of the image that each layer keeps, and the part that it has lost.

image = test.images[620:621]
parts = spaces.kept_and_lost(net, image, ["conv1", "conv2", "fc4", "fc5"])
parts.plot()

# %%
# Over a data set, layer by layer: how much of what a layer *reads* does it reject?

rejected = spaces.rejected_energy(net, test.subset(range(0, 2500, 250)), ["conv1", "conv2", "conv3", "fc4", "fc5"])
rejected.plot()

# %%

rejected.table()

# %%
# When to believe it
# ------------------
# Every share comes with a *proved* error: the dual problem bounds the kept energy from below. If the steps did not
# suffice, the number is marked as an upper bound ("at most"). Try it: the kept part alone must give the same output of
# the layer to within 1 %.

with_kept = net.run(parts.kept[0], record="conv1", check=False).value["conv1"]
with_all = net.run(image, record="conv1").value["conv1"]
bias = net.run(image * 0, record="conv1", check=False).value["conv1"]
change = float((with_kept - with_all).norm() / (with_all - bias).norm())
print(f"output of conv1 changes by {change:.2%}; share lost {parts.share[0, 0]:.2%} ± {parts.error[0, 0]:.2%}")
assert change < 0.011

# %%
# What it cannot show
# -------------------
# - The kept part belongs to *this* image: beyond the linear region around it, J is another matrix.
# - Losing a direction is not a fault of a layer. The direction may be noise.
# - A skip connection can carry what a layer loses past that layer.
#
# Methods: :doc:`/methods/kept-and-lost`, :doc:`/methods/rejected-energy`, :doc:`/methods/subspaces`,
# :doc:`/methods/spectra`. The full story: :doc:`/examples/05_signal_spaces`.
