"""Composites of relevance rules: which rule each layer follows, by name, by kind or by a selector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from microtome.errors import InputError, nearest
from microtome.network import Network
from microtome.trace.lrp.relevance import Chooser
from microtome.trace.lrp.rules import RULES, AlphaBeta, Epsilon, Flat, Gamma, Rule, SparingZPlus, ZBox, ZPlus

Selector = str | Callable[[str], bool]
Rules = str | Rule | Sequence[tuple[Selector, "Rule | str"]]

# Selectors are tried in order: "first" reads the image, "convolution" and "linear" are kinds, the rest names of layers.
COMPOSITES: dict[str, tuple[tuple[str, Rule], ...]] = {
    "epsilon": (("*", Epsilon()),),
    "z-plus": (("*", ZPlus()),),
    "epsilon-sparing-plus": (("convolution", SparingZPlus()), ("linear", Epsilon())),
    "epsilon-plus": (("convolution", ZPlus()), ("linear", Epsilon())),
    "epsilon-plus-flat": (("first", Flat()), ("convolution", ZPlus()), ("linear", Epsilon())),
    "epsilon-alpha2-beta1": (("convolution", AlphaBeta()), ("linear", Epsilon())),
    "epsilon-alpha2-beta1-flat": (("first", Flat()), ("convolution", AlphaBeta()), ("linear", Epsilon())),
    "epsilon-gamma-box": (("first", ZBox()), ("convolution", Gamma()), ("linear", Epsilon())),
}


def chooser(net: Network, rules: Rules) -> Chooser:
    """Turn the user's rules into a choice per layer.

    Parameters
    ----------
    net : Network
        The network, for the names of its layers.
    rules : str, Rule, or sequence of (selector, rule)
        A composite (``"epsilon-plus"``), one rule for all layers (``"gamma"``, ``Gamma(0.1)``), or
        pairs: the first selector that fits decides. A selector is ``"first"`` (layers that read the
        image), ``"convolution"``, ``"linear"``, a layer's name or pattern (``"layer4.*"``), or a
        function of the name. Layers that no selector fits follow epsilon.

    Raises
    ------
    InputError
        When a rule or composite does not exist, or a selector fits no layer.
    """
    pairs = _pairs(rules)
    for selector, _ in pairs:
        named = isinstance(selector, str) and selector not in ("first", "convolution", "linear", "*")
        if named and not any(fnmatchcase(name, str(selector)) for name in net.layers):
            raise InputError(f'no layer fits the selector "{selector}". Nearest: {nearest(str(selector), net.layers)}.')

    def choose(operation: str, kind: str, reads_image: bool) -> Rule:
        module = operation.rpartition("/")[0]
        for selector, rule in pairs:
            if callable(selector):
                fits = selector(module or operation)
            elif selector in ("first", "convolution", "linear"):
                named = {"first": reads_image, "convolution": kind.startswith("conv"), "linear": "conv" not in kind}
                fits = named[selector]
            else:
                fits = fnmatchcase(module, selector) or fnmatchcase(operation, selector)
            if fits:
                return rule
        return Epsilon()

    return choose


def _pairs(rules: Rules) -> list[tuple[Selector, Rule]]:
    if isinstance(rules, str) and rules in COMPOSITES:
        return [*COMPOSITES[rules]]
    if isinstance(rules, str | Rule):
        return [("*", _rule(rules))]
    try:
        return [(selector, _rule(rule)) for selector, rule in rules]
    except (TypeError, ValueError) as error:
        raise InputError(
            f'rules are a name, a rule, or pairs (selector, rule) such as ("layer1.*", "gamma"); got {rules!r}.'
        ) from error


def _rule(rule: Rule | str) -> Rule:
    if isinstance(rule, Rule):
        return rule
    if rule not in RULES:
        known = [*COMPOSITES, *RULES]
        raise InputError(f'there is no rule "{rule}". Nearest: {nearest(str(rule), known)}. Known: {", ".join(known)}.')
    return RULES[rule]()
