"""The interception engine: the only place that touches torch's hooks and function modes."""

from microtome.trace.axes.value_axes import Axes, Factor
from microtome.trace.backward_rules import BackwardRule, Operation, RuleSet
from microtome.trace.fingerprint import fingerprint
from microtome.trace.folding import Weights, channels_innermost, folded
from microtome.trace.graph import Graph, Layer, watch
from microtome.trace.guard import hooked_backwards
from microtome.trace.lrp.attention import Attentions, are_shares
from microtome.trace.operators.operator_calls import Call
from microtome.trace.passes import RecordedPass, up_to
from microtome.trace.receptive_fields import ReceptiveField
from microtome.trace.rectifiers.rectifier_rules import Deconvnet, Guided
from microtome.trace.tracing.observers import Capture
from microtome.trace.tracing.tracer import Tracer
from microtome.trace.tracing.watching import INPUT, Replacement, Rules

RULES: dict[str, type[RuleSet]] = {"guided": Guided, "deconvnet": Deconvnet}

__all__ = [
    "INPUT",
    "RULES",
    "Attentions",
    "Axes",
    "BackwardRule",
    "Call",
    "Capture",
    "Deconvnet",
    "Factor",
    "Graph",
    "Guided",
    "Layer",
    "Operation",
    "ReceptiveField",
    "RecordedPass",
    "Replacement",
    "RuleSet",
    "Rules",
    "Tracer",
    "Weights",
    "are_shares",
    "channels_innermost",
    "fingerprint",
    "folded",
    "hooked_backwards",
    "up_to",
    "watch",
]
