r"""
Why this class?
===============

Which pixels made the score :math:`S_c` of class c? There is no single right answer, because the methods ask different
questions:

.. math::
   \text{gradient: } \frac{\partial S_c}{\partial x_i}, \qquad
   \text{integrated gradients: } (x_i - x_i') \int_0^1 \frac{\partial S_c}{\partial x_i}(x' + a (x - x'))\, da, \qquad
   \text{occlusion: } S_c(x) - S_c(x \text{ without } i).

The gradient asks what a small change of a pixel would do. Integrated gradients ask how the pixels of the image,
compared with a baseline x', add up to the score. Occlusion asks what the network answers if something is missing.
Relevance (LRP) distributes the score backwards from layer to layer, in proportion to the contribution of each unit.
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
# One digit, two classes. For each class the map shows the evidence for it (red) and against it (blue).

image = test.images[1890:1891]
print(
    "probabilities:",
    ", ".join(f"{name} {float(p):.1%}" for name, p in zip("0123456789", net.probabilities(image)[0]) if p > 0.01),
)
for_nine = attribution.integrated_gradients(net, image, 9, steps=200)
for_nine.plot()

# %%

for_seven = attribution.integrated_gradients(net, image, 7, steps=200)
for_seven.plot()

# %%
# When to believe it
# ------------------
# Look at the certificate first. Integrated gradients must add up to the score minus the score of the baseline;
# relevance must add up to the score, including the share of the biases. If the sum of integrated gradients is off, they
# need more steps.

relevance = attribution.lrp(net, image, 9)
print(f"integrated gradients: {for_nine.completeness_gap[0]:+.4f} missing of a score of {for_nine.score[0]:.2f}")
print(f"relevance and biases over the score: {relevance.conservation[0]:.4f}, biases {relevance.bias_share[0]:+.2f}")
assert abs(float(for_nine.completeness_gap[0])) < 0.02 * float(for_nine.score[0])

# %%
# Then ask a method that needs no gradient. If occlusion agrees on the place, this is stronger evidence than a second
# gradient method.

covered = attribution.occlusion(net, image, 9, window=6, stride=2)
covered.plot()

# %%
# What it cannot show
# -------------------
# - *Why not the other class?* A map of one class does not answer it. Subtract the maps of two classes, as in
#   :doc:`/examples/02_why_misclassified`; ``grad_cam(..., counterfactual=True)`` shows the evidence against it.
# - Interactions: a map of single pixels cannot show "both strokes together".
# - What a pixel *means*. The map says where, not what; ask the units there: :doc:`04_what_does_a_unit_detect`.
# - Guided backpropagation and deconvnet look sharp because they redraw the image, and hardly depend on the class:
#   :doc:`03_can_i_believe_this_map` measures it.
#
# Methods: :doc:`/methods/integrated-gradients`, :doc:`/methods/lrp`, :doc:`/methods/grad-cam`,
# :doc:`/methods/occlusion`, :doc:`/methods/explain-path`, and all others of their kind.
