r"""
What does a unit detect?
========================

A unit u of a layer has an activation :math:`f_u(x; i, j)` at each place. Three questions, three answers:

.. math::
   \text{patches: } \arg\max_{x \in D,\, i, j} f_u(x; i, j), \qquad
   \text{superstimulus: } \arg\max_{x} \operatorname{mean}_{ij} f_u(x; i, j), \qquad
   \text{tuning: } r_u(\theta) = \max_{\text{place}} f_u(\text{line at angle } \theta).

Patches are images of the data. The superstimulus is computed. Tuning curves use stimuli whose angle, width and
place are known, so that a unit gets a label in words.
"""

# %%
# The digits network of :doc:`/examples/01_a_first_look`.

from microtome import Network, data, synthesis, training, units, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
training.fit(model, train, recipe=recipe, out="runs/digits")
net = Network(model, (1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))

# %%
# The picture
# -----------
# Four units of ``conv2``: top patches, and what the deconvnet reconstructs from their activation.

patches = units.top_patches(net, test, ["conv2"], k=9)
units.reconstruct(net, patches["conv2"], k=4, units=[0, 1, 4, 5]).plot()

# %%
# The superstimuli, with their credentials.

best = synthesis.maximize(net, "conv2", channels=[0, 1, 4, 5], steps=96)
checked = synthesis.credentials(net, best, patches["conv2"])
checked.plot()

# %%
# Their responses to lines and edges.

tuning = units.tuning(net, "conv2")
tuning.plot(units=[0, 1, 4, 5])

# %%
# When to believe it
# ------------------
# A superstimulus can show something that drives the unit and that no image contains; planted circuits can even switch
# between photos and computed images. The *path* reveals this: are the units below the same ones?

for place, name in enumerate(checked.names):
    said = "trusted" if bool(checked.trusted[place]) else f"not trusted: {checked.reasons[place]}"
    print(
        f"{name}: percentile {checked.percentile[place]:.1f}, restarts agree {checked.agreement[place]:.2f}, "
        f"path {float(checked.path_similarity[place]):.2f}: {said}"
    )

# %%
# A unit gets the label of a pattern only if it is more selective than units of random networks; otherwise it is "not
# selective". The confidence is the share of random units that are less selective. If no pattern raises the response by
# a quarter of what white instead of black does, the label is brightness, and the confidence is the uniform share of the
# gradient's energy.

for unit in (0, 1, 4, 5):
    print(f"unit {unit}: {tuning.label(unit)}, confidence {float(tuning.confidence[unit]):.2f}")

# %%
# What it cannot show
# -------------------
# - Top patches are the extreme. At lower activations the unit may respond to something else: ``bins`` gives
#   patches over the whole range.
# - One unit, many meanings: the network need not use single units.
# - A unit that detects something need not matter: :doc:`05_which_units_matter`.
#
# Methods: :doc:`/methods/top-patches`, :doc:`/methods/reconstruct`, :doc:`/methods/maximize`,
# :doc:`/methods/credentials`, :doc:`/methods/tuning`, :doc:`/methods/what-where`. The full story:
# :doc:`/examples/03_what_does_this_unit_do`.
