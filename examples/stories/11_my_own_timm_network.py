"""
My own timm network
===================

You have a network from ``timm``, trained on your own images in your own loop. Microtome needs four things: the module,
the shape of the images, the normalisation, and the names of the classes. This page trains a residual network from
``timm`` on drawn shapes with a loop of plain PyTorch, and then examines what it has learnt, with pictures from a folder
as you would have them.
"""

# %%
# The images: a folder for each class
# -----------------------------------
# Circles, squares and triangles of any colour, size and place, on any background. They are written to disk as PNG files
# and read from there.

from pathlib import Path

import timm
import torch
from PIL import Image, ImageDraw
from torch.nn import functional

from microtome import Network, attribution, data, representation, synthesis, units

SIDE, CLASSES = 64, ("circle", "square", "triangle")


def shape(name: str, generator: torch.Generator) -> Image.Image:
    """A picture of one shape."""
    paint = [tuple(torch.randint(0, 256, (3,), generator=generator).tolist()) for _ in range(2)]
    picture = Image.new("RGB", (SIDE, SIDE), paint[0])
    radius = int(torch.randint(10, 22, (1,), generator=generator))
    x, y = torch.randint(radius, SIDE - radius, (2,), generator=generator).tolist()
    draw, box = ImageDraw.Draw(picture), [x - radius, y - radius, x + radius, y + radius]
    if name == "circle":
        draw.ellipse(box, fill=paint[1])
    elif name == "square":
        draw.rectangle(box, fill=paint[1])
    else:
        draw.polygon([(x, box[1]), (box[0], box[3]), (box[2], box[3])], fill=paint[1])
    return picture


generator = torch.Generator().manual_seed(0)
for part, count in (("train", 160), ("test", 40)):
    for name in CLASSES:
        folder = Path("runs/shapes") / part / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            shape(name, generator).save(folder / f"{index:03d}.png")

train = data.folder("runs/shapes/train", (3, SIDE, SIDE))
test = data.folder("runs/shapes/test", (3, SIDE, SIDE))
print(train, test)

# %%
# Your own training loop
# ----------------------
# Any loop will do. This one is plain PyTorch without Microtome.

torch.manual_seed(0)
model = timm.create_model("test_resnet", num_classes=len(CLASSES))
mean, std = model.default_cfg["mean"], model.default_cfg["std"]
pixels = torch.stack([train[index][0] for index in range(len(train))])
labels = torch.tensor([train[index][1] for index in range(len(train))])
normalised = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
for _ in range(16):
    for batch in torch.randperm(len(pixels)).split(32):
        loss = functional.cross_entropy(model(normalised[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
model.eval()
print(f"loss of the last step {float(loss.detach()):.3f}")

# %%
# Four things
# -----------

net = Network(model, input_shape=(3, SIDE, SIDE), mean=mean, std=std, classes=CLASSES)
net

# %%
# On the command line the same network is a function without arguments in a file of yours; see
# :doc:`/start/engineer`.

images = torch.stack([test[index][0] for index in range(len(test))])
truth = torch.tensor([test[index][1] for index in range(len(test))])
answers = net.probabilities(images).argmax(1)
accuracy = float((answers == truth).float().mean())
print(f"{accuracy:.1%} of {len(test)} test pictures, chance {1 / 3:.0%}")
assert accuracy > 0.6

# %%
# What decided?
# -------------
# One picture of each class; the network takes the pale square for a triangle. ``compare`` measures how far the maps
# agree.

some = torch.stack([images[index] for index in (0, 41, 81)])
maps = attribution.compare(net, some, methods=["grad-cam", "lrp", "guided-backprop", "integrated-gradients"])
maps.plot()

# %%

maps.table()

# %%
# Edge, inside or background?
# ---------------------------
# Here the truth is known: the colours are random, so only the outline determines the class. A window over the outline
# must cost more than a window over the background. Occlusion measures this in probabilities.

covered = attribution.occlusion(net, some, window=12, stride=4, fill="mean")
covered.plot()

# %%
# What do its units look for?
# ---------------------------

layer = "layer2"
patches = units.top_patches(net, test, [layer], k=9)
patches[layer].plot(limit=5)

# %%

synthesis.maximize(net, layer, channels=range(5), steps=96).plot()

# %%
# How are the images arranged?
# ----------------------------
# The two directions of largest variance, first in a layer near the pixels and then in one near the end. The share of
# neighbours of the same class puts the picture into a number.

for name in ("layer1", "layer4"):
    found = representation.pca(representation.features(net, test, name))
    distance = torch.cdist(found.points, found.points) + 1e9 * torch.eye(len(truth))
    same = (truth[distance.topk(5, largest=False).indices] == truth[:, None]).float().mean()
    print(f"{name}: {float(same):.0%} of the five nearest on the map have the same class")
found.plot()

# %%
# **What does not hold.** That the maps lie on the shapes is no proof that the network sees *shapes*: a corner
# detector is enough to tell a square from a circle, and occlusion with a window of another size can tell another
# story. Test it with a change that you understand: draw a square with round corners, and see what the network answers.
