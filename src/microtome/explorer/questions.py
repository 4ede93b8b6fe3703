"""Questions that a browser may ask about a network; each is validated before anything is computed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "QUESTIONS",
    "Covered",
    "Dissected",
    "Edited",
    "Examples",
    "Explained",
    "Live",
    "Looked",
    "Projected",
    "Shared",
    "Summed",
]

# "data:17" is an image of the data set by its number, "kept:..." an uploaded picture by its digest.
PictureName = Annotated[
    str,
    Field(
        pattern=r"^(data:[0-9]{1,9}|kept:[0-9a-f]{32})$",
        description='"data:17", or "kept:" with the digest of an uploaded picture',
    ),
]
LayerName = Annotated[str, Field(min_length=1, max_length=400)]
Unit = Annotated[int, Field(ge=0, le=10_000_000)]
Class = Annotated[int, Field(ge=0, le=10_000_000)]
Number = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Edited(_Strict):
    """A unit that is scaled (0 ablates it) or clamped to a number."""

    layer: LayerName
    unit: Unit
    scale: Number | None = None
    clamp: Number | None = None

    @model_validator(mode="after")
    def _one(self) -> Edited:
        if (self.scale is None) == (self.clamp is None):
            raise ValueError("give either scale or clamp")
        return self


class Looked(_Strict):
    """A network, a picture, and the changed units."""

    network: Annotated[int, Field(ge=0, le=1, description="0, or 1 for the checkpoint to compare with")] = 0
    picture: PictureName
    edits: Annotated[tuple[Edited, ...], Field(max_length=200)] = ()


class Live(Looked):
    """Scores of all classes and activation maps of all units of a layer."""

    layer: LayerName


class Explained(Looked):
    """Which pixels speak for a class, by an attribution method; without a target for the predicted class."""

    method: Annotated[str, Field(max_length=60)]
    target: Class | None = None


class Covered(Looked):
    """How occluding each part of the picture changes the probability of a class."""

    target: Class | None = None
    window: Annotated[int, Field(ge=1, le=4096)] | None = None
    stride: Annotated[int, Field(ge=1, le=4096)] | None = None


class Projected(Looked):
    """Which pixels drive a unit, at the place where it is strongest."""

    layer: LayerName
    unit: Unit
    method: Literal["gradient", "deconvnet", "guided", "relevance"] = "gradient"


class Dissected(Looked):
    """A unit's activation as a sum over its input channels."""

    layer: LayerName
    unit: Unit


class Summed(Looked):
    """The score of a class as a sum over the units of a layer."""

    layer: LayerName
    target: Class | None = None


class Examples(_Strict):
    """What drives a unit: patches of the data and superstimuli, stored or, on request, computed now."""

    network: Annotated[int, Field(ge=0, le=1)] = 0
    layer: LayerName
    unit: Unit
    compute: Literal["", "patches", "superstimulus"] = ""


class Shared(Looked):
    """The content of a frozen view."""

    layer: LayerName
    unit: Unit = 0
    target: Class | None = None
    method: Annotated[str, Field(max_length=60)] = "saliency"
    projection: Literal["gradient", "deconvnet", "guided", "relevance"] = "gradient"


# By the word in the address of the endpoint and in messages.
QUESTIONS: dict[str, type[_Strict]] = {
    "live": Live,
    "explain": Explained,
    "occlusion": Covered,
    "project": Projected,
    "dissect": Dissected,
    "sum": Summed,
    "examples": Examples,
}
