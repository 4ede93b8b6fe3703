"""
What does this unit do?
=======================

This page examines one unit of the second convolution in five independent ways: the patches that drive it, its
superstimulus, its response to lines of known angle, the sum that gives its activation, and what the network loses
without it. They do not have to agree, and the page says where they differ.
"""

# %%
# The network of :doc:`01_a_first_look`.

import torch

from microtome import Network, data, synthesis, training, units, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
training.fit(model, train, recipe=recipe, out="runs/digits")
net = Network(model, input_shape=(1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))

# %%
# Choose a unit
# -------------
# Lines, edges, corners and gratings of known angle and place are shown to every unit of both layers. A unit gets a
# label in words if it is clearly more selective than units of random networks; otherwise it is "not selective". We take
# the unit of ``conv2`` that is most confidently tuned.

tuning = units.tuning(net, ["conv1", "conv2"])
second = tuning["conv2"]
confidence = torch.as_tensor(second.confidence)
unit = int(confidence.nan_to_num(0).argmax())
selective = sum(second.label(each) != "not selective" for each in range(64))
print(f"{selective} of 64 units of conv2 have a label")
print(f"unit {unit}: {second.label(unit)}, confidence {float(confidence[unit]):.2f}")

# %%

second.plot(units=[unit])

# %%
# Patches and superstimulus
# -------------------------
# The top patches are images of the data, so they are real. The superstimulus is computed and may show
# something that no image of the data contains. Its credentials compare the two: by which units below is the unit
# driven?

patches = units.top_patches(net, test, ["conv2"], k=9)
patches["conv2"].plot(channel=unit)

# %%

best = synthesis.maximize(net, "conv2", channels=[unit], steps=128)
checked = synthesis.credentials(net, best, patches["conv2"])
checked.plot()

# %%

print(f"percentile among the data {float(checked.percentile[0]):.1f}")
print(f"agreement of restarts {checked.agreement[0]:.2f}, same path as the patches {checked.path_similarity[0]:.2f}")
print("trusted" if bool(checked.trusted[0]) else f"not trusted: {checked.reasons[0]}")

# %%
# How is it computed?
# -------------------
# On the image that drives it most, its activation is a sum over the 32 units below. The dissection shows each term: the
# input, the weights, the product, and the running sum, which ends in the output.

index = int(patches["conv2"].image[unit, 0])
sheet = units.dissect(net, test[index][0][None], "conv2", unit, labels=tuning["conv1"])
sheet.plot()

# %%
# The sum is exact up to rounding, as the result itself checks.

share = sheet.share.sort(descending=True).values
print(f"sum and network differ by {sheet.gap:.1e}; rounding allows {sheet.bound:.1e}")
print(f"the 5 strongest inputs carry {float(share[:5].sum()):.0%} of the activation's strength")
assert sheet.gap <= sheet.bound

# %%
# Does the network need it?
# -------------------------
# Every unit of the layer is ablated in turn, on 500 digits. A drop of one percent is within the noise of so few images:
# the standard error of an accuracy of 94 % on 500 images is about one percent.

some = test.subset(range(0, 2500, 5))
without = units.ablate(net, some, "conv2")
drop = without.drop
rank = int((drop > drop[unit]).sum()) + 1
hurt, by = without.most_hurt(unit)
print(
    f"without unit {unit} the accuracy falls by {drop[unit]:.2%}: rank {rank} of 64; most for the {hurt}, by {by:.1%}"
)

# %%

without.plot()

# %%
# **What does not hold.** A label names what the unit responds to *among the stimuli that were shown*. It is no proof
# that the unit has no second job: a unit of ``conv2`` often answers to one pattern strongly and to another half as
# much, and the tuning curves above show it. The most sharply tuned unit is in general not the one that the network
# needs most.
