"""
Why was this image misclassified?
=================================

The network of :doc:`01_a_first_look` is wrong on a few digits in a hundred. We take its most confident mistake, ask
what was evidence for the wrong class and against the right one, and then *test* the explanation by changing the image.
"""

# %%
# The worst mistake
# -----------------

import torch

from microtome import Network, attribution, data, training, units, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
training.fit(model, train, recipe=recipe, out="runs/digits")
net = Network(model, input_shape=(1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))

images, labels = test.images, test.labels
probability = net.probabilities(images)
answer = probability.argmax(1)
sure, wrong = probability.max(1).values, answer != labels
worst = int((sure * wrong).argmax())
image, says, true = images[worst : worst + 1], int(answer[worst]), int(labels[worst])
print(f"{int(wrong.sum())} of {len(test)} are wrong. The worst: image {worst} is a {true}, and the network says {says}")
print(f"with {float(sure[worst]):.1%}; the {true} gets {float(probability[worst, true]):.2%}.")

# %%
# One class against the other
# ---------------------------
# The map of the *answer* alone does not tell why it won: both classes like the same strokes. The difference of two
# scores is itself a score, so the map of one class minus the map of the other shows what decided between them. For
# integrated gradients this difference is exact: it adds up to the lead of the wrong class over the right one.

for_wrong = attribution.integrated_gradients(net, image, says, steps=300)
for_right = attribution.integrated_gradients(net, image, true, steps=300)
difference = for_wrong.map[0] - for_right.map[0]
logits = net.logits(image)[0]
black = net.logits(torch.zeros_like(image))[0]
lead = float(logits[says] - logits[true])
before = float(black[says] - black[true])
print(
    f"lead of {says} over {true}: {lead:.3f}; on a black image {before:.3f}; the map adds {float(difference.sum()):.3f}"
)
assert abs(before + float(difference.sum()) - lead) < 0.01 * lead

# %%
# The two maps, above for the wrong class, below for the right one.

for_wrong.plot()

# %%

for_right.plot()

# %%
# Cover and see
# -------------
# Occlusion needs no gradient: a gray window covers one place after the other, and the network answers each time. If the
# winning class changes, the mistake needed the covered strokes. If it never changes, no single window of this size
# carries the mistake, and one has to remove more pixels, or other ones.

covered = attribution.occlusion(net, image, says, window=6, stride=2)
covered.plot()

# %%

appear = covered.classes_that_appear[0]
share = float((covered.winner[0] == true).float().mean())
print(f"classes that win somewhere: {appear}; the right one at {share:.0%} of the window's places")

# %%
# Test the explanation
# --------------------
# The map names pixels. Is it right about them? We remove the 20 pixels that are the strongest evidence for the wrong
# class, and, as a control, 20 random pixels of the stroke, a hundred times.


def lead_without(pixels: torch.Tensor) -> float:
    """The lead of the wrong class after some pixels have been set to black."""
    changed = image.clone()
    changed.view(-1)[pixels] = 0
    scores = net.logits(changed)[0]
    return float(scores[says] - scores[true])


stroke = (image.flatten() > 0.1).nonzero().flatten()
named = lead_without(difference.flatten().topk(20).indices)
generator = torch.Generator().manual_seed(0)
control = torch.tensor(
    [lead_without(stroke[torch.randperm(len(stroke), generator=generator)[:20]]) for _ in range(100)]
)
print(f"lead before {lead:.2f}; without the 20 named pixels {named:.2f}")
print(f"without 20 random pixels of the stroke {control.mean():.2f} (from {control.min():.2f} to {control.max():.2f})")
assert named < float(control.mean())

# %%
# Which units decided?
# --------------------
# The walk from the score down to the image: each score is a sum over units, and each unit a sum over the units below
# it.

path = units.explain_path(net, image[0], says)
path.plot()

# %%
# The certificate of the walk is the largest difference between an amount and the sum of its parts.

print(f"largest gap: {path.gap:.1e} of a score of {float(logits[says]):.2f}")
assert path.gap < 1e-3 * abs(float(logits[says]))

# %%
# **What does not hold.** The story is about one image. That 20 pixels carry this mistake does not say that they carry
# the next one; :doc:`04_is_there_a_shortcut` asks about the whole data set. And the network has never seen images with
# pixels set to black: this is why the control with random pixels is needed.
