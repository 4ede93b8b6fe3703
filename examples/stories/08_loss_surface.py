"""
Loss surface
============

The loss around the trained weights, drawn on a plane through the weights as in "Visualizing the Loss Landscape of
Neural Nets" (Li et al., 2018). It is easy to trust a picture of a plane too much. So each point comes with a standard
error, the picture is tested by rescaling weights without changing the network, and the path of the training is shown
with the share of it that lies off the plane.
"""

# %%
# A small network, stored after every epoch.

import copy

import torch

from microtome import Network, data, training, zoo
from microtome.training import landscape

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
run = training.fit(model, train, recipe=recipe, out="runs/digits")
net = Network(model, (1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))

# %%
# The plane
# ---------
# Two random directions, each filter scaled to the length of the network's own filter. 11 x 11 points on 250 images.

some = train.subset(range(0, 2500, 10))
plane = landscape.surface(net, some, steps=11, extent=1.0, seed=0)
plane.plot()

# %%
# How sure is each point? And is the network at the bottom of the bowl?

centre = plane.loss[5, 5]
print(f"loss at the network {centre:.3f} ± {plane.error[5, 5]:.3f}; lowest point {plane.loss.min():.3f}")
print(
    f"largest loss on the plane {float(plane.loss.max()):.2f} ± {float(plane.error.flatten()[plane.loss.argmax()]):.2f}"
)
print(f"share of the points with negative curvature: {plane.negative_curvature:.0%}")

# %%
# Does the picture mean anything?
# -------------------------------
# Double the weights of one convolution and halve those of the next: a ReLU network computes the same as before. If the
# picture changed, it would show how the weights are written and not what the network does.

scaled = copy.deepcopy(model)
with torch.no_grad():
    scaled.conv1.weight.mul_(2)
    scaled.conv1.bias.mul_(2)
    scaled.conv2.weight.div_(2)
other = Network(scaled, (1, 28, 28), mean=0.1307, std=0.3081)
line, again = (landscape.line(each, some, steps=11, seed=0) for each in (net, other))
raw, raw_again = (landscape.line(each, some, steps=11, seed=0, normalization="none") for each in (net, other))
print(f"filter-normalised: largest difference {float((line.loss - again.loss).abs().max()):.1e}")
print(f"not normalised:    largest difference {float((raw.loss - raw_again.loss).abs().max()):.1e}")
assert (line.loss - again.loss).abs().max() < 1e-3

# %%

line.plot()

# %%
# Between two networks
# --------------------
# The straight line from this network to one with other initial weights. Both are good; the networks half-way between
# them are not.

second = zoo.build("simple-convnet", seed=1)
training.fit(second, train, recipe=recipe, out="runs/digits-1")
net_b = Network(second, (1, 28, 28), mean=0.1307, std=0.3081)
way = landscape.between(net, net_b, some, test=test.subset(range(0, 2500, 10)), steps=11)
way.plot()

# %%

print("accuracy along the way:", " ".join(f"{float(each):.0%}" for each in way.accuracy))

# %%
# The training's own plane
# ------------------------
# The plane of the two directions along which the weights of the epochs vary most, with the path of the training.
# Weights of three epochs were kept, and three points always lie in one plane: here the plane must explain everything.
# With more epochs the two numbers below say how much of the path the picture hides.

path = landscape.surface(net, some, steps=9, run=run)
path.plot()

# %%

print(f"the plane explains {path.explained.sum():.0%}; share of the path's length off the plane {path.off_plane:.1%}")

# %%
# **What does not hold.** *The surface is a bowl, so training is easy.* Two directions out of 229,706 were drawn. A
# random plane shows how the loss rises in a typical direction. It does not show the few directions in which the loss
# rises far faster (``training.curvature.eigenvalues`` computes them), nor the saddles that the training passed
# elsewhere.
