"""
Information plane
=================

"Training has two phases: fitting, then compression" (Shwartz-Ziv and Tishby, 2017). The claim rests on numbers of bits,
and these depend on an estimator. So the estimator is tested first, on planted information, and layers whose numbers
cannot be trusted are marked. Then tanh is compared with ReLU, as Saxe and others did (2018).
"""

# %%
# The task
# --------
# All 4,096 patterns of 12 bits, and a symmetric rule that gives their class. The input has exactly 12 bits, so nothing
# about it has to be estimated.

from microtome.training import information

task = information.twelve_bits()
print(f"{len(task.labels)} patterns; the class holds {information.entropy(task.labels):.5f} bit")

# %%
# Three networks of each kind, trained at once. The article averages over 50 networks and trains for 8,000 epochs.

runs = {
    kind: information.train_networks(task, networks=3, epochs=1000, checkpoints=20, activation=kind, lr=1.6e-3)
    for kind in ("tanh", "relu")
}
runs["tanh"].plot()

# %%
# tanh, thirty bins
# -----------------
# Each line is a layer, from the first epoch (dark) to the last. To the right: more information about the input. Up:
# more information about the class.

tanh = information.plane(runs["tanh"], estimator="binning", edges=30, trials=4)
tanh.plot()

# %%
# Which layers are admitted? A known amount of information is planted in layers of this width, for this many inputs. An
# estimator is admitted only if it recovers this amount.

for layer, admitted, reason in zip(tanh.layers, tanh.admitted.tolist(), tanh.reasons, strict=True):
    print(f"{layer}: {'admitted' if admitted else 'NOT admitted'}: {reason}")
print(f"data-processing inequality holds within {tanh.tolerance} bit: {tanh.consistent}")

# %%
# Compression is a fall of I(X;T) from its largest value to the end of training.

for layer, bits in zip(tanh.layers, tanh.compression.mean(1).tolist(), strict=True):
    print(f"{layer}: {bits:.2f} bit lost by the end")

# %%
# ReLU
# ----
# The same with ReLU. Its values have no upper limit, so the bins from -1 to 1 of the first published code would be
# wrong; each layer has its own.

relu = information.plane(runs["relu"], estimator="binning", edges=30, trials=4)
relu.plot()

# %%

print("bits lost by the end:")
for layer, of_tanh, of_relu in zip(
    tanh.layers, tanh.compression.mean(1).tolist(), relu.compression.mean(1).tolist(), strict=True
):
    print(f"{layer:>8}: tanh {of_tanh:.2f}, ReLU {of_relu:.2f}")

# %%
# Drift and diffusion
# -------------------
# The second half of the claim: first the gradients' mean is larger than their spread, then the spread takes over.

phases = information.gradient_phases(runs["tanh"])
phases.plot()

# %%
# **What does not hold.** *Networks compress.* What the bins show is that tanh units saturate: their values gather in
# the outermost bins. A deterministic network without bins loses nothing of a finite set of inputs; "information" here
# means "information at the resolution of the bins", and the page says which. *Compression causes generalisation*:
# nothing on this page supports it. With 3 networks and 1,000 epochs these are sketches; :doc:`/gallery` has the full
# study.
