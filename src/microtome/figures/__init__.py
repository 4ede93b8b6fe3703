"""How is a result drawn? One table from kinds of results to drawing functions, imported when one is drawn."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from microtome.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from microtome.results import Result

# Class of the result -> "module:function" in this folder; a subclass is drawn as its nearest base unless it has a line.
DRAWINGS: dict[str, str] = {
    "Ablation": "units:ablation",
    "ActivationMaps": "units:activation_maps",
    "Connections": "units:connections",
    "EffectiveField": "units:effective_field",
    "LayerPatches": "units:layer_patches",
    "Reconstructions": "units:reconstructions",
    "Similarity": "units:similarity",
    "Specialised": "units:specialised",
    "TopImages": "units:top_images",
    "TopPatches": "units:top_patches",
    "Dissection": "dissection:dissection",
    "Filters": "filters:filters",
    "Stimuli": "tuning:stimuli",
    "Tuning": "tuning:tuning",
    "Attribution": "attribution:attribution",
    "LayerAttribution": "attribution:attribution",
    "PathAttribution": "attribution:attribution",
    "SampledAttribution": "attribution:attribution",
    "Occlusion": "attribution:occlusion",
    "Comparison": "attribution:comparison",
    "CamConversion": "surgery:cam_conversion",
    "IdealInputs": "ideal_inputs:ideal_inputs",
    "NetworkInverse": "inverse:network_inverse",
    "Invertibility": "inverse:invertibility",
    "ExitDistance": "linear_regions:exit_distance",
    "FacetDistance": "linear_regions:facet_distance",
    "LinearRegion": "linear_regions:linear_region",
    "FacetPath": "linear_regions:facets_between",
    "Evaluation": "quality:evaluation",
    "Infidelity": "quality:infidelity",
    "PixelCurve": "quality:pixel_curve",
    "ShortcutShare": "shortcut:shortcut_share",
    "SpottingBias": "shortcut:spotting_bias",
    "Randomisation": "quality:randomisation",
    "Sensitivity": "quality:sensitivity",
    "ClassResiduals": "spaces:class_residuals",
    "Lectures": "lectures:lectures",
    "KeptAndLost": "spaces:kept_and_lost",
    "Rejected": "spaces:rejected",
    "SingularTriplets": "spaces:triplets",
    "Spectra": "spaces:spectra",
    "Subspaces": "spaces:subspaces",
    "Inversion": "synthesis:inversion",
    "Superstimuli": "synthesis:superstimuli",
    "WeightVectors": "spaces:weight_vectors",
}


def place_of(kind: type[Result]) -> str | None:
    """Where a kind of result is drawn: its line in ``DRAWINGS``, or that of its nearest base; None without one."""
    return next((DRAWINGS[base.__name__] for base in kind.__mro__ if base.__name__ in DRAWINGS), None)


def draw(result: Result, **options: Any) -> Figure:
    """Draw a result with the function that its kind has in ``DRAWINGS``.

    Parameters
    ----------
    result : Result
        What a method returned.
    **options
        Those of the drawing function.

    Raises
    ------
    InputError
        When there is no drawing for this kind, or the drawing has no such option.
    """
    place = place_of(type(result))
    if place is None:
        known = ", ".join(sorted(DRAWINGS))
        raise InputError(f"there is no figure for a {type(result).__name__}. Figures exist for: {known}.")
    module, _, name = place.partition(":")
    function = getattr(importlib.import_module(f"microtome.figures.{module}"), name)
    _check_options(function, options)
    figure: Figure = function(result, **options)
    return figure


def _check_options(function: Any, options: dict[str, Any]) -> None:
    import inspect

    known = list(inspect.signature(function).parameters)[1:]
    strange = sorted(set(options) - set(known))
    if strange:
        raise InputError(f'the figure has no option "{strange[0]}". Options: {", ".join(known) or "none"}.')
