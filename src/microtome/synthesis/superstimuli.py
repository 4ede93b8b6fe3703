"""What came of it? Images with what they reach, the best of several climbs for every unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.results import Provenance, Result
from microtome.synthesis.ascent import Climb
from microtome.synthesis.objectives import Objective, Where
from microtome.synthesis.placement import Frame, chunk_size
from microtome.synthesis.targets import Asked


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Superstimuli(Result):
    """Images that excite units most.

    Attributes
    ----------
    images : Tensor
        (n, C, h, w) in the network's pixel range; the images of one unit follow each other.
    activation : Tensor
        (n,) what was maximised, as the image reaches it at rest in the picture (see ``box``), over the
        positions centred on it. For ``sign=-1`` the low value reached.
    peak, mean : Tensor
        (n,) the largest (for ``sign=-1`` the smallest) and the mean value over the same positions; for
        one neuron over all positions. The measure of the activation of a patch of data.
    history : Tensor
        (steps, n) the objective during the ascent, as seen under motion.
    channel, variant : Tensor
        (n,) which channel or class (row of ``directions``), and which of its diverse images.
    layer : str
        The layer; ``"logits"`` for classes.
    sign : int
        1, or -1 for images that lower the unit most.
    names : list of str
        What each image is of.
    box : tuple of int
        Where the images lie in the network's picture: top, left, bottom, right (exclusive). Around them
        the picture has the network's mean colour; ``on_picture`` puts them there.
    """

    images: Tensor
    activation: Tensor
    peak: Tensor
    mean: Tensor
    history: Tensor
    channel: Tensor
    variant: Tensor
    layer: str
    sign: int
    names: list[str]
    box: tuple[int, int, int, int]

    def of(self, channel: int) -> Tensor:
        """The images of one channel or class, (diverse, C, h, w).

        Raises
        ------
        InputError
            When it is not among them.
        """
        found = self.images[self.channel == channel]
        if not len(found):
            raise InputError(f"channel {channel} is not here; there are {sorted(set(self.channel.tolist()))}.")
        return found

    def on_picture(self, net: Network) -> Tensor:
        """The images where they lie in a picture of the network's size, (n, C, H, W)."""
        return Frame(self.box, self.box).in_picture(self.images, net)


def made(climb: Climb, asked: Asked, where: Where, starts: int, note: Provenance) -> Superstimuli:
    """Climb chunk by chunk, keep the best start of every row, and measure at rest."""
    per_chunk = max(1, chunk_size(climb.net, climb.objective.layers, climb.frame.window) // climb.diverse)
    sign = int(note.parameters["sign"])
    measures = {"activation": where, "peak": "max", "mean": "mean"}
    parts: list[dict[str, Tensor]] = []
    for rows in torch.arange(len(asked.rows), device=climb.net.device).split(per_chunk):
        rows = rows.repeat_interleave(climb.diverse)
        images, history = _best(climb, rows, asked.make(where, sign), starts)
        measured = {key: sign * climb.reached(images, rows, asked.make(how, sign)) for key, how in measures.items()}
        parts.append({"images": images, "history": history.T, **measured})
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return Superstimuli(
        provenance=note,
        images=joined["images"],
        activation=joined["activation"],
        peak=joined["peak"],
        mean=joined["mean"],
        history=sign * joined["history"].T,
        channel=torch.tensor(asked.rows).repeat_interleave(climb.diverse),
        variant=torch.arange(climb.diverse).repeat(len(asked.rows)),
        layer=asked.layer,
        sign=sign,
        names=[name for name in asked.names for _ in range(climb.diverse)],
        box=climb.frame.canvas,
    )


def _best(climb: Climb, rows: Tensor, measure: Objective, starts: int) -> tuple[Tensor, Tensor]:
    """Per row the start whose images reach most at rest, diverse images taken together."""
    images, history = climb.run(rows, 0)
    best = climb.reached(images, rows, measure)
    for start in range(1, starts):
        others, seen = climb.run(rows, start)
        reached = climb.reached(others, rows, measure)
        gained = (reached - best).view(-1, climb.diverse).mean(1) > 0
        better = gained.repeat_interleave(climb.diverse)
        images = torch.where(better[:, None, None, None], others, images)
        history = torch.where(better, seen, history)
        best = torch.where(better, reached, best)
    return images, history
