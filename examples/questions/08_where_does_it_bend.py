r"""
Where does the network bend?
============================

A network of ReLU, max-pooling and linear layers is piecewise linear. Around each image there is a region in which
it is *exactly* one affine map,

.. math:: S(x) = A x + b \quad\text{for all } x \text{ in the region},

and the region ends at a facet, where one unit switches on or off. How far is it, and which unit is it?
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
# The exact weights of the affine map for the three largest scores of a digit.

image = test.images[620:621]
scores = net.logits(image)[0]
region = spaces.linear_region(net, image, classes=scores.topk(3).indices.tolist())
region.plot()

# %%
# On the first twentieth of the straight line from a 2 to a 4: every point at which a unit switches.

start, end = test.images[620], test.images[1130]
way = spaces.facets_between(net, start, start + (end - start) / 20)
way.plot()

# %%
# When to believe it
# ------------------
# The statement is exact, so it can be checked to the last digit: the affine map must give the network's own scores.

by_map = region.apply(image)[0]
print("network:", [f"{float(each):.5f}" for each in scores.topk(3).values])
print("affine map:", [f"{float(each):.5f}" for each in by_map.flatten()[:3]])
print(f"distance to the nearest facet {region.distance[0]:.5f} (the image's own length is {image.norm():.2f})")

# %%
# What it cannot show
# -------------------
# - The region is tiny: the distance above is far smaller than a visible change. The map explains the image, but hardly
#   its neighbours.
# - The nearest facet is seldom the decision boundary.
# - GELU, SiLU, tanh and softmax attention are curved everywhere; for them the method raises an error that says so.
#
# Methods: :doc:`/methods/linear-region`, :doc:`/methods/facet-distance`, :doc:`/methods/exit-distance`,
# :doc:`/methods/facets-between`.
