"""
A first look
============

This page trains a network for digits in half a minute. Then it answers three questions: what is the network made of,
why did it give this answer, and what does one of its units look for? The other pages go deeper into each question.
"""

# %%
# A network and its images
# ------------------------
# ``model`` is an ordinary ``torch.nn.Module``. The training is Microtome's own loop, but any other serves as well. If
# the folder holds a finished run, ``fit`` reads it and takes no time.

import torch

from microtome import Network, attribution, data, synthesis, training, units, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
run = training.fit(model, train, recipe=recipe, out="runs/digits")
run

# %%
# ``Network`` reads the model: its layers by name, what its scores are, and which axis of each value holds the units.
# The pixels of your images stay in [0, 1]; the network normalises them inside. The model itself is not changed.

net = Network(model, input_shape=(1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))
net

# %%
# How good is it? The standard error says how much the number would change with another 2,500 digits.

loss, accuracy = training.evaluate(model, test, mean=0.1307, std=0.3081)
error = (accuracy * (1 - accuracy) / len(test)) ** 0.5
print(f"{accuracy:.1%} of {len(test)} digits that it has not seen, standard error {error:.1%}")
assert accuracy > 0.9

# %%
# Why this answer?
# ----------------
# Five maps of three digits; the last is a 7 that the network takes for a 9. Red is evidence for the answer and blue
# against it. Relevance (``lrp``) and integrated gradients follow the strokes. The gradient is noisy. Grad-CAM is
# coarse, and here it also lies beside the strokes: it weighs each feature map by one number for all places, and the
# head of this network reads each place by weights of its own. :doc:`/questions/03_can_i_believe_this_map` measures
# which map to believe.

images = torch.stack([test[index][0] for index in (620, 1130, 1890)])
methods = ["gradient", "grad-cam", "lrp", "integrated-gradients", "guided-backprop"]
maps = attribution.compare(net, images, methods=methods)
maps.plot()

# %%
# Each map comes with a check. Integrated gradients must add up to the change of the score from the black image to this
# one; if they do not, the method needs more steps. Relevance adds up to the score itself, including the share of the
# biases.

path = attribution.integrated_gradients(net, images)
relevance = attribution.lrp(net, images)
print("integrated gradients, what is missing from the sum:", [f"{gap:.4f}" for gap in path.completeness_gap.tolist()])
print("relevance and biases over the score:", [f"{share:.4f}" for share in relevance.conservation.tolist()])
assert path.completeness_gap.abs().max() < 0.1
assert (relevance.conservation - 1).abs().max() < 0.01

# %%
# What does a unit look for?
# --------------------------
# The nine patches of the test images that drive the first units of the second convolution most. Each patch is exactly
# the receptive field of the unit.

patches = units.top_patches(net, test, ["conv2"], k=9)
patches["conv2"].plot(limit=6)

# %%
# These images drive the same units even more. They are computed by gradient ascent from noise.

best = synthesis.maximize(net, "conv2", channels=range(6), steps=64)
best.plot()

# %%
# Does the computed image beat the data? Compare its activation with the largest of any patch. A larger one shows only
# that the search worked. Whether the image shows what drives the unit *in the data* is another question: see
# :doc:`/questions/04_what_does_a_unit_detect`.

record = patches["conv2"].activation[:6, 0]
for unit in range(6):
    print(f"unit {unit}: best patch {float(record[unit]):5.1f}, computed image {float(best.peak[unit]):5.1f}")

# %%
# **What does not hold.** The network has seen 2,500 digits only; the published accuracy of its kind is over 99 %. The
# maps tell what this network used, not what a digit is.
