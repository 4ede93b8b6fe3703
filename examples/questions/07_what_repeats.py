r"""
What repeats?
=============

Do two layers hold the same information? Linear centred kernel alignment compares their similarities between the same
images:

.. math:: \mathrm{CKA}(X, Y) = \frac{\|Y^\top X\|_F^2}{\|X^\top X\|_F \, \|Y^\top Y\|_F}

with centred columns. 1 means equal up to rotation and scale, and 0 nothing in common. The estimate from n images is
biased upwards, so the unbiased one is used.
"""

# %%
# The digits network of :doc:`/examples/01_a_first_look`.

from microtome import Network, data, representation, training, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
training.fit(model, train, recipe=recipe, out="runs/digits")
net = Network(model, (1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))

# %%
# The picture
# -----------
# Every layer compared with every other, on 250 digits, with intervals from leaving images out and a null distribution
# from permuted images.

some = test.subset(range(0, 2500, 10))
layers = ["conv1", "conv2", "conv3", "fc4", "fc5"]
alignment = representation.cka(net, None, some, layers, permutations=50)
alignment.plot()

# %%

alignment.table()[:10]

# %%
# Each layer compared with the one before it, as a whole and unit by unit.

found = representation.repeats(net, some, layers, permutations=10)
found.plot()

# %%
# When to believe it
# ------------------
# The interval must not contain the values of permuted images. And a layer that seems to repeat the one before can be
# tested: remove it, retrain, and compare (:doc:`/methods/without`).
#
# What it cannot show
# -------------------
# - The directions of largest variance dominate CKA. Two layers can agree there and differ in what decides the class.
# - A few unusual images can dominate it: the method reports the influence of the strongest ones.
# - Equal similarity is not equal function.
#
# Methods: :doc:`/methods/cka`, :doc:`/methods/layer-repeats`, :doc:`/methods/similar-units`, :doc:`/methods/without`.
