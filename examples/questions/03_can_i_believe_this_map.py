r"""
Can I believe this map?
=======================

Four tests. A good map must pass each of them; none of them proves a map right.

*Deletion* and *insertion*: remove the pixels in the order of the map, the most important first; the probability p of
the class should fall fast. Put them back on a blurred image; it should rise fast. With :math:`p_k` after a share
:math:`k / K` of the pixels, the area is :math:`\frac1K \sum_k p_k`.

*Infidelity*: the error of the map as a linear forecast of the effect of noise e on the score,

.. math:: \mathbb{E}_e \Big( \sum_i e_i m_i - \big(S_c(x) - S_c(x - e)\big) \Big)^2 .

*Max-sensitivity*: how much the map changes if the image changes invisibly. *Randomisation*: the map
of a network whose weights are noise must differ from the map of the trained one.
"""

# %%
# The digits network of :doc:`/examples/01_a_first_look`.

from microtome import Network, attribution, data, training, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
training.fit(model, train, recipe=recipe, out="runs/digits")
net = Network(model, (1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))

# %%
# The picture
# -----------
# Six methods and a random map, evaluated on 30 digits.

images = test.images[40::84]
methods = ["saliency", "gradient-x-input", "integrated-gradients", "guided-backprop", "grad-cam", "lrp"]
found = attribution.evaluate(net, images, methods, fills=["black", "blur"], steps=14, samples=8)
found.plot()

# %%

found.table()

# %%
# Does the map depend on the network?
# -----------------------------------
# The weights are replaced by noise from the output down, one layer after the other, and the map is computed each time.
# The curve is the similarity to the true map. A method whose curve stays high shows the image and not the network.

guided = attribution.randomisation(net, images[:4], "guided-backprop")
guided.plot()

# %%

integrated = attribution.randomisation(net, images[:4], "integrated-gradients")
integrated.plot()

# %%
# Here the signs change at once, but the absolute values hardly change: integrated gradients are multiplied by the
# image, so a black pixel has 0 with any weights. Trust the signs of such a map and its ranking within the stroke. That
# it lies on the stroke says nothing about the network.
#
# When to believe it
# ------------------
# - It beats the random map in deletion *and* insertion, with more than one fill. Deletion alone rewards maps that
#   lead to images unlike any that the network has seen.
# - It changes when the weights change.
# - It passes its own check: ``completeness_gap``, ``conservation``.
# - A coarse and a fine method of different families agree on the place.
#
# What it cannot show
# -------------------
# No number here compares the map with the truth, since for a trained network the truth is not known. If the truth is
# known, because a shortcut was planted or the images were drawn, use masks: :doc:`06_is_there_a_shortcut`. And the
# ranking above is of *this* network: on another one it may be reversed.
#
# Methods: :doc:`/methods/evaluate`, :doc:`/methods/deletion`, :doc:`/methods/insertion`, :doc:`/methods/infidelity`,
# :doc:`/methods/max-sensitivity`, :doc:`/methods/randomisation`. On a command line:
# ``microtome evaluate``, ``microtome randomisation``.
