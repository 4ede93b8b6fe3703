"""What in this image decided? Methods that return a map over the pixels of each image."""

from microtome.attribution.class_activation.cam import cam
from microtome.attribution.class_activation.grad_cam import grad_cam
from microtome.attribution.class_activation.guided_grad_cam import guided_grad_cam
from microtome.attribution.compare import Comparison, compare
from microtome.attribution.gradients.baselines import baseline
from microtome.attribution.gradients.deconvnet import deconvnet
from microtome.attribution.gradients.gradient import gradient
from microtome.attribution.gradients.gradient_x_input import gradient_x_input
from microtome.attribution.gradients.guided_backprop import guided_backprop
from microtome.attribution.gradients.integrated_gradients import PathAttribution, integrated_gradients
from microtome.attribution.gradients.saliency import saliency
from microtome.attribution.gradients.smooth_grad import SampledAttribution, smooth_grad
from microtome.attribution.occlusion import Occlusion, occlusion
from microtome.attribution.quality import (
    Evaluation,
    Infidelity,
    PixelCurve,
    Randomisation,
    Sensitivity,
    ShortcutShare,
    deletion,
    energy_in_mask,
    evaluate,
    infidelity,
    insertion,
    max_sensitivity,
    pointing_game,
    randomisation,
    shortcut_share,
)
from microtome.attribution.relevance.attention_rollout import attention_rollout
from microtome.attribution.relevance.deep_taylor import deep_taylor
from microtome.attribution.relevance.lrp import RelevanceAttribution, lrp
from microtome.attribution.result import Attribution, LayerAttribution
from microtome.trace.lrp import rules

__all__ = [
    "Attribution",
    "Comparison",
    "Evaluation",
    "Infidelity",
    "LayerAttribution",
    "Occlusion",
    "PathAttribution",
    "PixelCurve",
    "Randomisation",
    "RelevanceAttribution",
    "SampledAttribution",
    "Sensitivity",
    "ShortcutShare",
    "attention_rollout",
    "baseline",
    "cam",
    "compare",
    "deconvnet",
    "deep_taylor",
    "deletion",
    "energy_in_mask",
    "evaluate",
    "grad_cam",
    "gradient",
    "gradient_x_input",
    "guided_backprop",
    "guided_grad_cam",
    "infidelity",
    "insertion",
    "integrated_gradients",
    "lrp",
    "max_sensitivity",
    "occlusion",
    "pointing_game",
    "randomisation",
    "rules",
    "saliency",
    "shortcut_share",
    "smooth_grad",
]
