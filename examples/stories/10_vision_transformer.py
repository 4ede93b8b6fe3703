"""
A vision transformer
====================

A transformer cuts the image into patches, which exchange information by attention. It has no convolutions after the
first layer, no ReLU and no feature maps with height and width, so tools that look for these fail on it. This page
trains a small ViT from ``timm`` on digits and makes the same calls as for a convolutional network.
"""

# %%
# The network
# -----------
# ``timm``'s own class, unchanged: patches of 4 x 4 pixels, 49 of them and one class token, 3 blocks of 3 heads.

import timm
import torch

from microtome import Network, attribution, data, training, units

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
torch.manual_seed(0)
model = timm.create_model(
    "vit_tiny_patch16_224", img_size=28, patch_size=4, in_chans=1, embed_dim=48, depth=3, num_heads=3, num_classes=10
)
recipe = training.Recipe(
    epochs=14, batch=25, optimizer="adamw", lr=2e-3, weight_decay=0.05, schedule="one-cycle", mean=0.1307, std=0.3081
)
training.fit(model, train, recipe=recipe, out="runs/vit")
net = Network(model, (1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))
accuracy = training.evaluate(model, test, mean=0.1307, std=0.3081)[1]
print(f"{accuracy:.1%} of {len(test)} digits")
assert accuracy > 0.7

# %%
# Microtome measures which axis of every value holds the images, the tokens and the units. ``N`` are images, ``C``
# units, numbers are positions; no layer had to be named or reshaped by hand.

net

# %%
# What decided?
# -------------
# Grad-CAM reads the tokens as a map of 7 x 7. Attention rollout multiplies the attention of all blocks and does not
# depend on the class. LRP goes back through attention, layer norm and GELU.

images = torch.stack([test[index][0] for index in (120, 620, 1130, 2380)])
maps = attribution.compare(
    net, images, methods=["grad-cam", "attention-rollout", "lrp", "integrated-gradients", "saliency"]
)
maps.plot()

# %%
# Which map can I believe?
# ------------------------
# Pixels are deleted, the most important ones of a map first; the sooner the probability of the class falls, the better
# the map. A random map is a control. 24 digits.

judged = torch.stack([test[index][0] for index in range(40, 2500, 104)])
found = attribution.evaluate(
    net,
    judged,
    ["grad-cam", "attention-rollout", "lrp", "integrated-gradients", "saliency"],
    fills=["black"],
    steps=14,
    samples=8,
)
found.table()

# %%

relevance = attribution.lrp(net, images)
path = attribution.integrated_gradients(net, images, steps=100)
print("relevance and biases over the score:", [f"{each:.3f}" for each in relevance.conservation.tolist()])
print("integrated gradients, missing from the sum:", [f"{each:.3f}" for each in path.completeness_gap.tolist()])

# %%
# What do its units look for?
# ---------------------------
# A unit is a channel of the tokens. Its "patch" is the place of the token, but attention has let the whole image in:
# the receptive field of every block is the whole image, and Microtome says so.

layer = "blocks.1.mlp.fc1"
patches = units.top_patches(net, test, [layer], k=9)
patches[layer].plot(limit=6)

# %%
# Which units does it need?

without = units.ablate(net, test.subset(range(0, 2500, 10)), "blocks.2.mlp.fc1", units=range(24))
print(f"largest drop of the accuracy without one of 24 units of the last block: {float(without.drop.max()):.1%}")
without.plot()

# %%
# **What does not hold.** *Attention is explanation.* Rollout uses the attention weights alone; it is the same map for
# every class and ignores what the values and the MLPs do. The table above compares it with the random map and with
# methods that read the score. And this is a small ViT on 2,500 digits: convolutional networks of this size are better
# on so few images, and what holds here need not hold for a large ViT.
