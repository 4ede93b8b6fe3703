"""Accuracy before retraining at equal multiply-adds: absorption by least squares beside torch-pruning's criteria.

``python -m benchmarks.pruning [simple-convnet resnet18 efficientnet-lite0 seven-rounds]``. Every method sees the same
images; the peer's criteria are tried with layer-wise and with global ratios, and the better of the two on the test
images counts. Beside the accuracy stand the share of images with the same class as in the whole network, and the
difference of accuracy to the peer's better criterion. Both see the same images, so only images on which the two differ
count. The difference comes with its standard error, the p-value of an exact sign test, and a conclusion in words.

``seven-rounds`` prunes SimpleConvNet from 32-64-64 channels to 8-16-16 with retraining, on all of MNIST.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
import warnings
from pathlib import Path

import torch
import torch_pruning as tp
from scipy import stats
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from microtome import Network, data, surgery, zoo
from microtome.data import batches
from microtome.surgery import latency
from microtome.surgery.compression.compress import compressed, survey
from microtome.training import Recipe, checkpoints, fit, train_network

RESULTS = Path(__file__).parent / "results" / "pruning.json"
RUNS = Path(os.environ.get("MICROTOME_BENCHMARK_RUNS", "runs/benchmark-pruning"))
FASHION = os.environ.get("MICROTOME_FASHION_MNIST")
PHOTOS = Path(os.environ.get("MICROTOME_PHOTOS", "../shared/images"))
SHARES = (0.9, 0.7, 0.5, 0.3)


def simple_convnet():
    """MNIST, trained on 12,000 digits for two epochs."""
    train, test = data.mnist("train"), data.mnist("test")
    model = zoo.simple_conv_net()
    recipe = Recipe(epochs=2, batch=64, lr=0.05, nesterov=True, weight_decay=5e-4, schedule="one-cycle",
                    mean=0.1307, std=0.3081, channels_last=True)  # fmt: skip
    trained(model, "simple", train.subset(range(12_000)), recipe)
    return Network(model.eval(), (1, 28, 28), 0.1307, 0.3081), train.subset(range(500)), test


def small_clothes(part, count):
    """Fashion-MNIST averaged to 14 x 14."""
    whole = data.fashion_mnist(part, folder=FASHION)
    pixels = (functional.avg_pool2d(whole.images[:count], 2) * 255).round().to(torch.uint8)
    return data.Images(pixels, whole.labels[:count])


def resnet18():
    """CIFAR's stem (3 x 3, stride 1, no pooling) on Fashion-MNIST at 14 x 14: 4,000 images, three epochs."""
    model = zoo.resnet18((1, 14, 14), 10)
    model.conv1, model.maxpool = nn.Conv2d(1, 64, 3, padding=1, bias=False), nn.Identity()
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    recipe = Recipe(epochs=3, batch=64, lr=0.05, nesterov=True, weight_decay=5e-4, schedule="one-cycle",
                    mean=0.286, std=0.353, channels_last=True)  # fmt: skip
    train = small_clothes("train", 4000)
    trained(model, "resnet18", train, recipe)
    net = Network(model.eval(), (1, 14, 14), 0.286, 0.353)
    return net, train.subset(range(1000)), small_clothes("test", 1000)


def efficientnet_lite0():
    """Pretrained, on photos named by their ImageNet class: every second one for fitting, the others for the test."""
    net = zoo.network("efficientnet-lite0")
    paths = sorted(PHOTOS.glob("*.jpeg"))
    items = [(data.open_picture(path, net.input_shape), int(path.name[:3])) for path in paths]
    return net, items[::2], items[1::2]


NETWORKS = {"simple-convnet": simple_convnet, "resnet18": resnet18, "efficientnet-lite0": efficientnet_lite0}


def trained(model, name, train, recipe):
    """Train, or read the result of an earlier run."""
    path = RUNS / f"{name}.safetensors"
    if path.exists():
        model.load_state_dict(checkpoints.read(path)[0])
        return
    fit(model, train, recipe=recipe, out=RUNS / name)  # an interrupted training resumes from the last epoch
    checkpoints.write(path, checkpoints.state_of(model), {})


def answers(net, dataset):
    """Predicted class and whether it is right, for every image."""
    parts = [(net.logits(x).argmax(1), y) for _, x, y in batches(dataset, 50)]
    predicted = torch.cat([answer for answer, _ in parts])
    return predicted, predicted == torch.cat([y for _, y in parts])


def percent(mask):
    return 100 * float(mask.double().mean())


def ahead(mine, other):
    """By how many percentage points ``mine`` is ahead: its standard error, the p-value of a sign test, a verdict."""
    difference = mine.double() - other.double()
    won, lost = int((difference > 0).sum()), int((difference < 0).sum())
    lead, error = 100 * float(difference.mean()), 100 * float(difference.std() / len(difference) ** 0.5)
    p = float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    verdict = "not told apart"
    if p < 0.05:
        verdict = "ahead" if lead > 0 else "behind"
    elif abs(lead) <= error:
        verdict = "not told apart: within the standard error"
    return {"ahead": lead, "ahead error": error, "only ours right": won, "only theirs right": lost, "p": p,
            "verdict": verdict}  # fmt: skip


def multiply_adds(net, model):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(net.normalise(torch.full((1, *net.input_shape), 0.5)))
    return counter.get_total_flops() / 2


class Peer:
    """torch-pruning at a share of the multiply-adds, found by bisection over its ratio."""

    def __init__(self, net, dataset):
        self.net, self.example = net, net.normalise(torch.full((1, *net.input_shape), 0.5))
        self.whole = multiply_adds(net, net.model)
        model = copy.deepcopy(net.model).eval()
        model.requires_grad_(True)
        for _, x, y in batches(dataset, 25):
            functional.cross_entropy(model(net.normalise(x)), y, reduction="sum").backward()
        self.model = model  # holds the gradients that the Taylor criterion reads
        self.classes = [m for m in model.modules() if isinstance(m, nn.Linear)][-1].out_features
        self.counts = {}  # multiply-adds by criterion and ratio, for reuse by several shares

    def pruned(self, criterion, share, everywhere):
        """The model with at most that share, as near to it as eight halvings get; None if there is none."""
        low, high, best = 0.0, 1.0, None
        for _ in range(8):
            middle = (low + high) / 2
            count = self.count(criterion, middle, everywhere)
            if count is None or count <= share * self.whole:
                high, best = middle, best if count is None else middle
            else:
                low = middle
        return None if best is None else self.cut(criterion, best, everywhere)

    def count(self, criterion, ratio, everywhere):
        """Multiply-adds at a ratio; None if the peer fails."""
        key = criterion, ratio, everywhere
        if key not in self.counts:
            model = self.cut(*key)
            self.counts[key] = None if model is None else multiply_adds(self.net, model)
        return self.counts[key]

    def cut(self, criterion, ratio, everywhere):
        """The model pruned by a ratio of channels, by layer or over the whole network; None if that fails."""
        model = copy.deepcopy(self.model)
        for (_, one), (_, two) in zip(model.named_parameters(), self.model.named_parameters(), strict=True):
            one.grad = None if two.grad is None else two.grad.clone()
        kept = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == self.classes]
        importance = {"magnitude": tp.importance.MagnitudeImportance, "taylor": tp.importance.TaylorImportance}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                tp.pruner.BasePruner(
                    model, self.example, importance[criterion](), global_pruning=everywhere, pruning_ratio=ratio,
                    ignored_layers=kept, max_pruning_ratio=0.95,
                ).step()  # fmt: skip
                model.eval()(self.example)
            except Exception:
                return None
        return model


def compare(name):
    net, fitting, testing = NETWORKS[name]()
    whole, right = answers(net, testing)
    print(f"\n{name}: {percent(right):.2f} % on {len(testing)} images; fitted on {len(fitting)}", flush=True)
    started = time.process_time()
    known = survey(net, fitting)
    ours, peer, rows = time.process_time() - started, Peer(net, fitting), []
    for share in SHARES:
        begun = time.process_time()
        small, gone = compressed(known, fitting, share)
        ours += time.process_time() - begun
        predicted, mine = answers(small, testing)
        timed = latency(net, small, images=8 if net.input_shape[1] < 100 else 2)
        row = {
            "share": share,
            "absorption": percent(mine),
            "absorption agrees": percent(predicted == whole),
            "absorption share": known.channels.multiply_adds(gone) / known.channels.multiply_adds(),
            "latency": [timed.low, timed.ratio, timed.high],
        }
        others = {}
        for criterion in ("magnitude", "taylor"):
            found = []
            for everywhere in (False, True):
                model = peer.pruned(criterion, share, everywhere)
                if model is not None:
                    said, correct = answers(Network(model, net.input_shape, net.mean, net.std), testing)
                    found.append(
                        (percent(correct), percent(said == whole), multiply_adds(net, model) / peer.whole, correct)
                    )
            row[criterion], row[f"{criterion} agrees"], row[f"{criterion} share"], others[criterion] = max(
                found, key=lambda one: one[0], default=(float("nan"),) * 3 + (torch.zeros_like(mine),)
            )
        best = max(others, key=lambda criterion: row[criterion])
        row |= {"better peer": best, **ahead(mine, others[best])}
        rows.append(row)
        texts = [
            f"{word} {row[key]:.2f} % (as before {row[f'{key} agrees']:.2f} %)"
            for key, word in (("absorption", "absorption"), ("magnitude", "magnitude"), ("taylor", "Taylor"))
        ]
        print(
            f"  {100 * share:3.0f} % of the multiply-adds: {', torch-pruning '.join(texts)}; "
            f"ahead {row['ahead']:+.2f} ± {row['ahead error']:.2f}, p {row['p']:.2g}: {row['verdict']}; "
            f"time of a pass {timed.ratio:.2f} of the whole network's",
            flush=True,
        )
    print(f"  {ours:.0f} CPU s for ours, {time.process_time() - started:.0f} with the peer and the measurements")
    return {"accuracy": percent(right), "images": len(testing), "fitted on": len(fitting), "seconds": ours,
            "points": rows}  # fmt: skip


def seven_rounds():
    """SimpleConvNet, trained on all of MNIST, from 32-64-64 channels to the article's 8 and 16 in seven rounds."""
    done = train_network("simple-convnet", "mnist", out=RUNS / "simple-convnet-mnist")
    net = Network(done.model.eval(), (1, 28, 28), 0.1307, 0.3081)
    started = time.process_time()
    found = surgery.prune(
        net, data.mnist("train+validation"), test=data.mnist("test"), rounds=7, tolerance=1.0,
        channels={"conv1": 8, "conv2": 16, "conv3": 16}, folder=RUNS / "seven-rounds",
    )  # fmt: skip
    print(found.table(), flush=True)
    last = found.rounds[-1]
    predicted = [answers(one, data.mnist("test"))[1] for one in (last.network, net)]
    lead = ahead(*predicted)
    print(f"  {100 * found.accuracy:.2f} % before, {100 * last.retrained:.2f} % after: {lead['ahead']:+.2f} points")
    return {
        "accuracy": 100 * found.accuracy, "images": last.images, "seconds": time.process_time() - started,
        "after": 100 * last.retrained, "change": lead["ahead"], "change error": lead["ahead error"],
        "share": last.share, "latency": found.latency[2:],
        "rounds": [
            {"channels": one.channels, "pruned": 100 * one.pruned, "retrained": 100 * one.retrained}
            for one in found.rounds
        ],
    }  # fmt: skip


def main(names):
    torch.set_num_threads(1)
    for name in names or (*NETWORKS, "seven-rounds"):
        one = seven_rounds() if name == "seven-rounds" else compare(name)
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        found[name] = one
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
