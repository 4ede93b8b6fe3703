r"""
How was it trained?
===================

A run stores the loss, the accuracy and the weights of its epochs. They show when the features settled,

.. math:: d_u(t) = 1 - \cos\big(w_u(t), w_u(T)\big),

the loss around and along the path, and its largest curvature (the eigenvalues of the Hessian).
"""

# %%
# The digits network of :doc:`/examples/01_a_first_look`.

from microtome import Network, data, training, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
run = training.fit(model, train, recipe=recipe, out="runs/digits")
net = Network(model, (1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))
run

# %%
# The picture
# -----------
# The filters of the first convolution at the end of each epoch, and how far they are from the last ones.

history = training.feature_history(
    net, run, test.subset(range(0, 2500, 25)), ["conv1"], show=("filters",), shown=(0, 1, 2, 3)
)
history.plot()

# %%
# The loss along a random direction through the weights, filter-normalised, with its standard error.

some = train.subset(range(0, 2500, 10))
line = training.landscape.line(net, some, steps=21)
line.plot()

# %%
# Where is the curvature largest? The largest and smallest eigenvalue of the Hessian, on 100 images.

curvature = training.curvature.eigenvalues(net, train.subset(range(0, 2500, 25)), k=1, tolerance=0.01)
curvature.plot()

# %%
# When to believe it
# ------------------
# - A point of the surface has a standard error; two surfaces differ where they differ by more.
# - Directions must be filter-normalised; otherwise the picture shows how the weights are written and not what they do.
# - A share of each path lies off the plane: ``off_plane``.
#
# What it cannot show
# -------------------
# - These are two directions of hundreds of thousands. A flat picture does not mean a flat network.
# - Why the network generalises. Flatness has been proposed, but rescaling changes it without changing the network.
#
# Methods: :doc:`/methods/loss-surface`, :doc:`/methods/loss-line`, :doc:`/methods/loss-between`,
# :doc:`/methods/hessian-eigenvalues`, :doc:`/methods/feature-history`, :doc:`/methods/information-plane`. The full
# stories: :doc:`/examples/08_loss_surface`, :doc:`/examples/09_information_plane`.
