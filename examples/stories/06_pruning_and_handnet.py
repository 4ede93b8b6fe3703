"""
Pruning, and a network built by hand
====================================

How many of a network's units are needed? Three answers: units that can be removed without any change, with a
certificate; units that can be removed with retraining; and a network of 806 numbers that were all set by hand.
"""

# %%
# Without any change
# ------------------
# A unit can be removed if it is always zero, if it repeats another one, or if the next layer ignores it. Each cut has a
# reason and a measured change of the scores.

import copy

from microtome import Network, data, surgery, training, zoo

digits = data.mnist_5000()
train, test = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 2))
model = zoo.build("simple-convnet", seed=0)
recipe = training.Recipe(epochs=3, batch=50, mean=0.1307, std=0.3081)
training.fit(model, train, recipe=recipe, out="runs/digits")
net = Network(model, (1, 28, 28), mean=0.1307, std=0.3081, classes=list("0123456789"))

free = surgery.lossless(net, train.subset(range(0, 2500, 10)))
free.plot()

# %%

print(f"{len(free.cuts)} cuts, {sum(len(cut.units) for cut in free.cuts)} units")
print(f"largest change of any score on the data {free.largest_change:.1e}, where scores reach {free.logits:.1f}")
assert free.largest_change <= free.tolerance

# %%
# Two thirds of the weights can go, and the figure says why. No nonlinearity stands between ``fc4`` and ``fc5``, so ten
# numbers carry all information of the 128 units of ``fc4``: this holds for every image (blue). The other reasons hold
# on the given images (gray): units that never fire, and units that are sums of others. Do they hold on other images?

scores, cut_scores = net.logits(test.images), free.network.logits(test.images)
same = float((scores.argmax(1) == cut_scores.argmax(1)).float().mean())
print(f"on {len(test)} other digits the scores change by up to {float((scores - cut_scores).abs().max()):.2g}")
print(f"and {same:.1%} of the answers stay the same")

# %%
# Not all of them: a reason that holds on 250 images need not hold on the next one. "Without any change" is a statement
# about the given images, and with more images fewer units can be removed. Only the blue cut is safe everywhere.
#
# In rounds
# ---------
# Each round removes whole channels, first those that the others can best replace, and trains the network again.
# The result is a smaller ordinary module.

some = test.subset(range(0, 2500, 5))
rounds = surgery.prune(net, train, test=some, rounds=2, multiply_adds=0.4, epochs=1, sample=128)
rounds.plot()

# %%

rounds.table()

# %%
# Is the cut exact? Before retraining, the smaller network must equal the large one with these channels masked. This is
# the certificate of each round.

for each in rounds.rounds:
    print(f"round {each.number}: {each.masked_difference:.1e}; channels {each.channels}")
    assert each.masked_difference < 1e-3
before, after, ratio = rounds.latency[:3]
print(
    f"time for 8 images: {1000 * before:.1f} ms before, {1000 * after:.1f} ms after (ratio {ratio:.2f}), measured here"
)

# %%
# Built by hand
# -------------
# HandNet has eight detectors of lines, 39 patterns at places, and votes. Nothing in it is trained. Every weight
# follows from a named number, and the whole network can be described in words:

by_hand = zoo.hand_net().eval()
print("\n".join(by_hand.describe().splitlines()[:16]))

# %%
# How good is it, how much does training its named numbers bring, and how much do free weights add?

accuracy = {"set by hand": training.evaluate(by_hand, test)[1]}
trained = copy.deepcopy(by_hand)
training.fit(
    trained, train, recipe=training.Recipe(epochs=3, batch=100, lr=0.1, optimizer="adam", schedule="one-cycle")
)
accuracy["named numbers trained"] = training.evaluate(trained, test)[1]
free_weights = trained.freed()
fine = training.Recipe(epochs=3, batch=100, lr=0.005, optimizer="adam", schedule="one-cycle")
training.fit(free_weights, train, recipe=fine)
accuracy["free weights trained"] = training.evaluate(free_weights, test)[1]
accuracy["SimpleConvNet"] = training.evaluate(model, test, mean=0.1307, std=0.3081)[1]
for name, value in accuracy.items():
    print(f"{name:>22}: {value:.1%} (standard error {(value * (1 - value) / len(test)) ** 0.5:.1%})")
assert accuracy["set by hand"] < accuracy["named numbers trained"]

# %%
# The word table still describes the network after training, since only named numbers were trained:

print("\n".join(trained.describe().splitlines()[:5]))

# %%
# **What does not hold.** "By hand" does not mean blind: the words of the table were revised while looking at training
# digits, and chosen by accuracy on them; but no gradient was used. The numbers here are from 2,500 training digits;
# :doc:`/gallery` has those of all of MNIST. A small network is not always a fast one: the time above was measured,
# and on small images the fixed cost of each layer can outweigh the saved products.
