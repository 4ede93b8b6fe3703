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
    "Ablation": "unit_figures:ablation",
    "ActivationMaps": "unit_figures:activation_maps",
    "Connections": "unit_figures:connections",
    "EffectiveField": "unit_figures:effective_field",
    "LayerPatches": "unit_figures:layer_patches",
    "Reconstructions": "unit_figures:reconstructions",
    "Similarity": "unit_figures:similarity",
    "Specialised": "unit_figures:specialised",
    "TopImages": "unit_figures:top_images",
    "TopPatches": "unit_figures:top_patches",
    "Dissection": "dissection_figures:dissection",
    "Filters": "filters_figures:filters",
    "Stimuli": "tuning_figures:stimuli",
    "Tuning": "tuning_figures:tuning",
    "Attribution": "attribution_figures:attribution",
    "LayerAttribution": "attribution_figures:attribution",
    "PathAttribution": "attribution_figures:attribution",
    "SampledAttribution": "attribution_figures:attribution",
    "Occlusion": "attribution_figures:occlusion",
    "Comparison": "attribution_figures:comparison",
    "CamConversion": "surgery_figures:cam_conversion",
    "Compression": "pruning_figures:widths",
    "Criteria": "pruning_figures:criteria",
    "Latency": "pruning_figures:latency",
    "HessianEigenvalues": "landscape_figures:eigenvalues",
    "LossLine": "landscape_figures:line",
    "LossSurface": "landscape_figures:surface",
    "Lossless": "pruning_figures:lossless",
    "Pruning": "pruning_figures:pruning",
    "PruningRound": "pruning_figures:widths",
    "Without": "pruning_figures:without",
    "IdealInputs": "ideal_input_figures:ideal_inputs",
    "NetworkInverse": "inverse_figures:network_inverse",
    "Invertibility": "inverse_figures:invertibility",
    "ExitDistance": "linear_regions_figures:exit_distance",
    "FacetDistance": "linear_regions_figures:facet_distance",
    "LinearRegion": "linear_regions_figures:linear_region",
    "FacetPath": "linear_regions_figures:facets_between",
    "Evaluation": "quality_figures:evaluation",
    "Infidelity": "quality_figures:infidelity",
    "PixelCurve": "quality_figures:pixel_curve",
    "ShortcutShare": "shortcut_figures:shortcut_share",
    "SpottingBias": "shortcut_figures:spotting_bias",
    "Randomisation": "quality_figures:randomisation",
    "Sensitivity": "quality_figures:sensitivity",
    "ClassResiduals": "space_figures:class_residuals",
    "AlignedMaps": "representation_figures:aligned_maps",
    "Features": "representation_figures:features",
    "ImageMap": "representation_figures:image_map",
    "KernelAlignment": "representation_figures:kernel_alignment",
    "Lectures": "lectures_figures:lectures",
    "KeptAndLost": "space_figures:kept_and_lost",
    "Rejected": "space_figures:rejected",
    "SingularTriplets": "space_figures:triplets",
    "Spectra": "space_figures:spectra",
    "Subspaces": "space_figures:subspaces",
    "GradientPhases": "information_figures:gradient_phases",
    "InformationPlane": "information_figures:information_plane",
    "NetworkRuns": "information_figures:networks",
    "PlaneComparison": "information_figures:comparison",
    "Inversion": "synthesis_figures:inversion",
    "Superstimuli": "synthesis_figures:superstimuli",
    "VectorSpaces": "ideal_input_figures:vector_spaces",
    "WeightVectors": "space_figures:weight_vectors",
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
