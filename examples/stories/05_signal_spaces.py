"""
Signal spaces
=============

A linear layer can see only part of what it reads. Its matrix W splits every input into a part that it can see, and a
part that it maps to zero. This page splits the inputs of a one-layer network for digits in this way, as in "Vector
spaces of neural networks" [1]_, and then does the same for a convolutional network.
"""

# %%
# One layer, ten rows
# -------------------
# ``fcnn1`` is one linear layer with 784 inputs and 10 outputs.

from microtome import Network, data, spaces, training, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("fcnn1", seed=0)
recipe = training.Recipe(epochs=8, batch=64, lr=0.01)
training.fit(model, train, recipe=recipe)
net = Network(model, (1, 28, 28), classes=list("0123456789"))
layer = next(name for name, each in net.layers.items() if each.kind == "Linear")
print(f"{training.evaluate(model, test)[1]:.1%} of {len(test)} digits")

# %%
# The four spaces
# ---------------
# The signal space is spanned by the rows of W: it has at most 10 dimensions of 784. All of the other 774 directions are
# rejected. The condition number says how unequally the layer sees within its signal space.

split = spaces.subspaces(net, layer)
print(f"rank {split.rank} of {split.signal.shape[0]} dimensions, condition number {split.condition_number:.2f}")
split.plot()

# %%
# Every image is the sum of both parts, and the layer cannot tell the image from its signal part. The code checks both
# statements.

images = test.images[::250]
flat = images.flatten(1).double()
signal, rejected = split.project(flat), split.reject(flat)
weight = net.module(layer).weight.detach().double()
same = float((flat @ weight.T - signal @ weight.T).abs().max())
print(f"largest difference of any output: {same:.1e}")
print(f"largest difference of image and sum of parts: {float((signal + rejected - flat).abs().max()):.1e}")
kept, lost = split.energy(flat)
print(f"energy in the signal part: {float((kept / (kept + lost)).mean()):.0%} on average")
assert same < 1e-9

# %%
# So this layer rejects most of what makes a digit look like a digit, and is still right almost nine times in ten. The
# figure shows what it rejects of the average picture of each class:

residuals = spaces.class_residuals(net, train)
residuals.plot()

# %%
# Remove the signal
# -----------------
# A test of the claim: without its signal part an image looks nearly the same to us. To the network all such images are
# the same image.

blind = rejected.float().view(-1, 1, 28, 28)
scores = net.logits(blind, check=False)
print(f"the scores of ten different digits without their signal part differ by {(scores - scores[0]).abs().max():.1e}")
assert float((scores - scores[0]).abs().max()) < 1e-4

# %%
# A convolution
# -------------
# In a convolutional network the matrix of a layer has the size of its feature maps. Microtome applies it and its
# transpose without writing it down, with the true stride and padding.

convolutional = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
training.fit(convolutional, train, recipe=recipe, out="runs/digits")
deep = Network(convolutional, (1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))
spaces.spectra(deep).plot()

# %%
# What does each layer keep of an image? The lost part can be removed without changing the layer's output by more than
# 1 %.

parts = spaces.kept_and_lost(deep, test.images[620:621], ["conv1", "conv2", "conv3", "fc4", "fc5"])
parts.plot()

# %%

for name, each, error in zip(parts.layers, parts.share[:, 0], parts.error[:, 0], strict=True):
    print(f"{name}: {float(each):.1%} of the energy lost (proved to within {float(error):.1%})")

# %%
# **What does not hold.** *A layer of full rank loses nothing.* By rank, a convolution with more outputs than inputs
# loses nothing at all; yet many directions pass so faintly that no later layer can use them. So the share above has a
# threshold in its definition. And "rejected" is a statement about one layer: what a layer does not see may still
# matter if a skip connection carries it past the layer.
#
# .. [1] "Vector spaces of neural networks", see :doc:`/reproduction` for its numbers compared with ours.
