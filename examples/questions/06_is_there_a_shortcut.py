r"""
Is there a shortcut?
====================

A network may answer correctly for a wrong reason: a watermark, a ruler next to the lesion, the snow behind the wolf.
If a mask M marks the suspected object, the share of a map m on it is

.. math:: s = \frac{\sum_{p \in M} \max(m_p, 0)}{\sum_p \max(m_p, 0)}, \qquad \text{to compare with the area of } M .
"""

# %%
# A network for digits that has read a tag in the corner, as in :doc:`/examples/04_is_there_a_shortcut`.

from microtome import Network, attribution, data, training, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=2, batch=50, mean=0.1307, std=0.3081)
training.fit(model, data.with_shortcut(train, agreement=1.0), recipe=recipe, out="runs/biased")
net = Network(model, (1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))

# %%
# The picture
# -----------
# The mask is outlined. Here it is the tag; for your own images give your own masks.

right = data.with_shortcut(test, agreement=1.0)
pictures, masks = right.images.images[40::125], right.masks[40::125]
share = attribution.shortcut_share(net, pictures, masks, methods=["gradient-x-input", "lrp", "grad-cam"])
share.plot()

# %%
# When to believe it
# ------------------
# The share must be larger than the area, and larger than for a network that cannot have the shortcut. But the proof is
# a change: move or exchange the suspected object, and count the answers.

wrong = data.with_shortcut(test, agreement=0.0)
answers = net.probabilities(wrong.images.images).argmax(1)
print(f"right answers with the right tag: {training.evaluate(model, right, mean=0.1307, std=0.3081)[1]:.1%}")
print(f"right answers with a wrong tag:   {float((answers == wrong.images.labels).float().mean()):.1%}")
print(f"answers that follow the wrong tag: {float((answers == wrong.tags).float().mean()):.1%}")

# %%
# What it cannot show
# -------------------
# - A shortcut without a mask. Then look at the mistakes, at units with odd top patches, and at the map of
#   all images of one class.
# - A shortcut without a place: colour, blur, the JPEG quality of one clinic. No map of pixels shows these; change
#   them and count.
# - Grad-CAM on a head that reads places can be blind: see :doc:`/gallery`.
#
# Methods: :doc:`/methods/shortcut-share`. On a command line: ``microtome shortcut-share``, ``microtome spotting-bias``.
