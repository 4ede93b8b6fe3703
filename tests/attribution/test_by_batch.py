"""How many images go through at once: the processor's batches as before; on a GPU what its memory takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microtome import Network, attribution, batch_sizes
from microtome.attribution import batching


class SmallMemory:
    """A card of so many bytes where an image needs so many: a pass that needs more runs out of memory."""

    def __init__(self, size: int, each: int, growing: int = 0) -> None:
        self.size, self.each, self.growing = size, each, growing
        self.taken, self.passes, self.released = 0, [], 0

    def begin(self) -> None:
        self.taken = 0

    def used(self) -> int:
        return self.taken

    def free(self) -> int:
        return self.size

    def release(self) -> None:
        self.released += 1

    def run(self, images: Tensor, target) -> Tensor:
        needs = self.each * len(images) + self.growing * len(images) ** 2
        self.passes.append(len(images))
        if needs > self.size:
            raise torch.cuda.OutOfMemoryError("no memory left")
        self.taken = needs
        return images.flatten(1).sum(1) if target is None else images.flatten(1).sum(1) * torch.as_tensor(target)


def network() -> Network:
    return Network(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (3, 2, 2))


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def test_half_of_the_free_memory_is_filled_after_the_first_pass():
    memory, x = SmallMemory(2000, 10), images(200)
    found = batching.by_batch(network(), x, None, memory.run, None, memory=memory)
    assert memory.passes == [64, 100, 36]
    assert torch.equal(torch.cat(found), x.flatten(1).sum(1))


def test_after_running_out_the_batch_is_halved_with_the_same_result():
    memory, x = SmallMemory(900, 60), images(40)  # 64 do not fit, nor do 32; 15 would
    targets = list(range(40))
    found = batching.by_batch(network(), x, targets, memory.run, None, memory=memory)
    assert memory.passes[:3] == [40, 20, 10]
    assert memory.released == 2
    assert max(memory.passes[2:]) <= 10  # not tried again
    assert torch.equal(torch.cat(found), x.flatten(1).sum(1) * torch.arange(40))


def test_need_that_grows_faster_than_the_batch():
    """The first pass foretells too large a batch; the result is the same."""
    memory, x = SmallMemory(3000, 1, growing=1), images(300)
    found = batching.by_batch(network(), x, None, memory.run, None, memory=memory)
    assert sum(memory.passes) > 0
    assert torch.equal(torch.cat(found), x.flatten(1).sum(1))


def test_one_image_that_does_not_fit_raises():
    memory = SmallMemory(5, 10)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        batching.by_batch(network(), images(3), None, memory.run, None, memory=memory)
    assert memory.passes == [3, 1]


def test_a_batch_that_is_asked_for_is_kept():
    memory = SmallMemory(10**6, 1)
    batching.by_batch(network(), images(10), None, memory.run, 4, memory=memory)
    assert memory.passes == [4, 4, 2]


def test_the_processor_has_the_batches_it_had():
    seen = SmallMemory(10**6, 1)
    net = network()
    batching.by_batch(net, images(150), None, seen.run, None)
    assert seen.passes == [64, 64, 22]
    assert batch_sizes.fitting(net, None) == 64


@pytest.mark.parametrize("method", ["saliency", "lrp"])
def test_methods_go_through_in_these_batches(method, monkeypatch):
    """A whole method on a card with little memory gives the processor's numbers."""
    net, x = network(), images(9)
    expected = getattr(attribution, method)(net, x, [0, 1, 2] * 3).values
    memory, whole, sizes = SmallMemory(900, 100), batching.by_batch, []

    def small(net, images, target, run, batch, **options):
        def counted(part, asked):
            memory.run(part, None)
            sizes.append(len(part))
            return run(part, asked)

        return whole(net, images, target, counted, batch, memory=memory, **options)

    from microtome.attribution.gradients import input_gradient
    from microtome.attribution.relevance import lrp

    for module in (input_gradient, lrp):
        monkeypatch.setattr(module, "by_batch", small)
    memory.size = 400
    found = getattr(attribution, method)(net, x, [0, 1, 2] * 3).values
    assert len(sizes) > 2
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-7)


class Hungry(nn.Module):
    """Runs out of memory from some number of images on, forwards or backwards."""

    def __init__(self, most: int, backwards: bool) -> None:
        super().__init__()
        self.line, self.most, self.backwards, self.sizes = nn.Linear(12, 3), most, backwards, []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.most and not self.backwards:
            raise torch.cuda.OutOfMemoryError("no memory left")
        x = x.flatten(1)
        if x.requires_grad and self.backwards:
            x.register_hook(self.back)
        return self.line(x)

    def back(self, signal: Tensor) -> None:
        if len(signal) > self.most:
            raise torch.cuda.OutOfMemoryError("no memory left")


METHODS = {
    "saliency": {},
    "lrp": {},
    "integrated_gradients": {"steps": 7},
    "smooth_grad": {"samples": 7},
    "occlusion": {"window": 1, "stride": 1},
}


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_model_that_runs_out_of_memory_is_run_in_parts(method, backwards, monkeypatch):
    """The error comes through the engine as it is, from the way forwards and from the way back."""
    torch.manual_seed(0)
    plain, hungry = Hungry(10**6, backwards), Hungry(2, backwards)
    hungry.line.load_state_dict(plain.line.state_dict())
    x, call = images(5), getattr(attribution, method)
    expected = call(Network(plain, (3, 2, 2)), x, 1, **METHODS[method]).values
    net = Network(hungry, (3, 2, 2))
    memory = SmallMemory(10**9, 1)
    monkeypatch.setattr(batch_sizes, "memory_of", lambda _: memory)
    assert torch.allclose(call(net, x, 1, **METHODS[method]).values, expected, rtol=1e-5, atol=1e-7)
    if not backwards or method != "occlusion":  # which sends nothing back
        assert memory.released > 0


def test_quality_values_and_maps_run_in_parts_too(monkeypatch):
    net, plain, x = Network(Hungry(2, backwards=False), (3, 2, 2)), network(), images(5)
    net.model.line.load_state_dict(plain.model[1].state_dict())
    maps = torch.rand(5, 2, 2, generator=torch.Generator().manual_seed(1))
    memory = SmallMemory(10**9, 1)
    runs = {
        "deletion": lambda net: attribution.deletion(net, x, maps, 1, steps=3).probability,
        "infidelity": lambda net: attribution.infidelity(net, x, maps, 1, samples=2).values,
        "values": lambda net: net.activations(x, "logits")["logits"],
    }
    expected = {name: run(plain) for name, run in runs.items()}
    monkeypatch.setattr(batch_sizes, "memory_of", lambda _: memory)
    for name, run in runs.items():
        before = memory.released
        assert torch.allclose(run(net), expected[name], rtol=1e-5, atol=1e-6), name
        assert memory.released > before, name
