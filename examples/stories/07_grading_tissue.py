"""
Grading tissue
==============

In a lecture's example from pathology a network grades tissue of the cervix, from normal to carcinoma, and maximally
activating images show which patterns trigger a grade. Pathologists grade by known marks: how dense the cell nuclei are,
how large, how irregular, how dark. With real slides nobody knows for certain what the network *should* show. Here this
page draws the tissue itself, so the marks are known exactly, and the explanations can be compared with them.
"""

# %%
# Drawing tissue
# --------------
# Pink stroma with nuclei. With the grade the nuclei become more numerous, larger, more elongated, more variable, and
# darker. In every mark single nuclei of neighbouring grades overlap.

import torch
from torch import nn

from microtome import Network, attribution, data, synthesis, training, units

GRADES = ("normal", "low grade", "high grade", "carcinoma")
COUNT, RADIUS, STRETCH, DARK = (9, 15, 22, 30), (2.2, 2.6, 3.1, 3.6), (1.1, 1.3, 1.6, 1.9), (0.45, 0.55, 0.65, 0.75)
STROMA, NUCLEUS = torch.tensor([0.93, 0.72, 0.80]), torch.tensor([0.32, 0.18, 0.55])
SIDE = 48


def tissue(grade: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """One picture (3, 48, 48) of a grade, and the mask of its nuclei (48, 48)."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    count = max(3, round(COUNT[grade] + 3 * float(normal(1))))
    centre = SIDE * torch.rand(count, 2, 1, 1, generator=generator)
    radius = (RADIUS[grade] + (0.2 + 0.15 * grade) * normal(count, 1, 1)).clamp(min=1.2)
    stretch = (STRETCH[grade] + 0.15 * normal(count, 1, 1)).clamp(min=1)
    angle = torch.pi * torch.rand(count, 1, 1, generator=generator)
    place = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")) + 0.5
    dy, dx = (place - centre).unbind(1)
    along, across = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    inside = 1 - ((along / stretch.sqrt()).square() + (across * stretch.sqrt()).square()).sqrt() / radius
    ink = (4 * inside).clamp(0, 1)  # soft edges
    dark = (DARK[grade] + 0.08 * normal(count, 1, 1)).clamp(0.2, 0.95)
    cover = 1 - (1 - ink * dark).prod(0)
    fibres = nn.functional.avg_pool2d(normal(1, SIDE + 8, SIDE + 2), (9, 3), 1)[0]
    stroma = STROMA[:, None, None] + 0.08 * fibres
    picture = stroma * (1 - cover) + NUCLEUS[:, None, None] * cover + 0.02 * normal(3, SIDE, SIDE)
    return picture.clamp(0, 1), (ink > 0.5).any(0)


def slides(count: int, seed: int) -> tuple[data.Images, torch.Tensor]:
    """Pictures of all grades in turn, and the masks of their nuclei."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [tissue(index % 4, generator) for index in range(count)]
    labels = torch.arange(count) % 4
    return data.Images.from_float(torch.stack([one for one, _ in drawn]), labels, classes=GRADES), torch.stack(
        [mask for _, mask in drawn]
    )


train, _ = slides(800, seed=1)
test, nuclei = slides(400, seed=2)

# %%
# The marks as measured in the pictures: the share of the picture that is nucleus, and how dark it is.

marks = torch.stack([nuclei.flatten(1).float().mean(1), 1 - test.images.mean((1, 2, 3))], 1)
for grade, name in enumerate(GRADES):
    mean, spread = marks[test.labels == grade].mean(0), marks[test.labels == grade].std(0)
    print(
        f"{name:>10}: nuclei {mean[0]:.0%} ± {spread[0]:.0%} of the picture, darkness {mean[1]:.2f} ± {spread[1]:.2f}"
    )

# %%
# A network that grades
# ---------------------
# Three convolutions, an average over the picture, one linear layer: about the smallest network that can grade at all.

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
)  # fmt: skip
recipe = training.Recipe(epochs=8, batch=40, optimizer="adam", lr=0.004, schedule="one-cycle", mean=0.7, std=0.2)
training.fit(model, train, recipe=recipe, out="runs/tissue")
net = Network(model, (3, SIDE, SIDE), mean=0.7, std=0.2, classes=GRADES)
answers = net.probabilities(test.images).argmax(1)
accuracy = float((answers == test.labels).float().mean())
print(
    f"{accuracy:.1%} of {len(test)} slides; more than one grade off: {int(((answers - test.labels).abs() > 1).sum())}"
)
assert accuracy > 0.7

# %%
# Where does it look?
# -------------------
# One slide of each grade. Red is evidence for the grade, blue against it.

picked = torch.arange(4)
maps = attribution.compare(
    net, test.images[picked], test.labels[picked], methods=["cam", "lrp", "integrated-gradients"]
)
maps.plot()

# %%
# The last column shows a trap. Integrated gradients compare the slide with a black picture. Nuclei are dark and black
# is darker, so in this comparison no pixel is evidence for a high grade. The baseline has to be what "no tumour" means
# here: something bright. The next block uses white.
#
# Does the network look at the nuclei? The share of each map's positive part that lies on nuclei, beside their share of
# the picture, which a map without information would have.

judged = torch.arange(80)
share = attribution.shortcut_share(
    net,
    test.images[judged],
    nuclei[judged],
    test.labels[judged],
    methods={"cam": {}, "lrp": {}, "integrated-gradients": {"baseline": "white"}},
)
for method in share.methods:
    values = share.share[next(key for key in share.share if key.endswith(method))]
    by_grade = [
        f"{name} {float(values[test.labels[judged] == grade].nanmean()):.0%} of "
        f"{float(share.area[test.labels[judged] == grade].mean()):.0%}"
        for grade, name in enumerate(GRADES)
    ]
    print(f"{method:>20}: {', '.join(by_grade)}")

# %%
# Maximal images
# --------------
# The image that maximises the score of each grade, computed from noise.

best = synthesis.maximize_class(net, list(GRADES), steps=128)
best.plot()

# %%
# They are not tissue. They show one thing clearly: higher grades are darker. Their darkness is measured as that of the
# slides.

darkness = 1 - best.images.mean((1, 2, 3))
for grade, name in enumerate(GRADES):
    usual = marks[test.labels == grade, 1]
    print(f"{name:>10}: darkness {darkness[grade]:.2f}; slides {usual.min():.2f} to {usual.max():.2f}")
order = darkness.argsort().tolist()
print("from bright to dark:", ", ".join(GRADES[grade] for grade in order))
assert darkness[3] > darkness[0]

# %%
# Which marks does it use?
# ------------------------
# Pictures explain; changes prove. The code changes one mark at a time in slides of the second grade, and records the
# mean grade that the network gives. This needs no map.


def graded(**changed: float) -> tuple[float, float]:
    """Mean grade of 100 slides of low grade with some marks changed, and its standard error."""
    generator, old = torch.Generator().manual_seed(7), {key: globals()[key] for key in changed}
    for key, value in changed.items():
        globals()[key] = tuple(value if grade == 1 else each for grade, each in enumerate(old[key]))
    pictures = torch.stack([tissue(1, generator)[0] for _ in range(100)])
    globals().update(old)
    grade = net.probabilities(pictures) @ torch.arange(4.0)
    return float(grade.mean()), float(grade.std() / 10)


usual, error = graded()
moved = {}
print(f"as drawn: {usual:.2f} (standard error {error:.2f})")
for what, mark, value in [
    ("as many as carcinoma", "COUNT", COUNT[3]),
    ("as large", "RADIUS", RADIUS[3]),
    ("as elongated", "STRETCH", STRETCH[3]),
    ("as dark", "DARK", DARK[3]),
]:
    mean, error = graded(**{mark: value})
    moved[mark] = mean - usual
    print(f"{what:>20}: {mean:.2f} (standard error {error:.2f}), moved by {moved[mark]:+.2f} grades")
assert min(moved, key=moved.get) == "STRETCH"

# %%
# So the network counts nuclei and measures size and darkness. It does not see that nuclei are elongated, though this is
# one of the marks. No map above could have shown this: the nuclei light up on the maps, whichever mark the network
# reads.
#
# Units and their patches
# -----------------------
# The crops of the slides that drive the units of the last layer most.

patches = units.top_patches(net, test, ["6"], k=9)
patches["6"].plot(limit=6)

# %%
# **What does not hold.** *Maximal images look like tissue and show the hallmarks.* In the lecture they do, for a deep
# network trained on real slides. This small network grades by darkness, and its maximal images are dark. They are a
# true answer about this network, and a warning: it would call any dark slide a carcinoma. On real slides the same four
# steps apply (maps, share on a mask, maximal images, changes). Only the last one proves anything, and there the hard
# part is to change one mark and nothing else.
