"""Nonlinearities that a model writes in several operations: relevance passes through them as through a single one.

``torch.where(x > 0, x, torch.exp(x) - 1)`` is ``elu(x)``, and passes all relevance on to ``x``. Taken one operation at
a time, the constant in it would keep a part, as if it were a bias.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from microtome.trace.backward_rules import BackwardRule, Operation, Through
from microtome.trace.lrp.by_hand.recentred import is_recentred
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import ELEMENTWISE, those
from microtome.trace.rectifiers.elementwise import Elementwise
from microtome.trace.rectifiers.value_function import Value

_SHIFTS = frozenset(("add", "sub", "rsub"))
_FOLLOWED = ELEMENTWISE | {"setitem", "max", "min"}
# Functions in hand-written nonlinearities, such as log(1 + exp(x)); a named activation is complete by itself.
_FUNCTIONS = those(role=("arithmetic", "function"), function="curved")
# Functions of one value and a constant that have no rule of their own.
_WITH_CONSTANT = frozenset(("rdiv", "div", "logaddexp"))


class Nonlinearities:
    """The nonlinearities of one pass that are written in several operations.

    The operations are followed while they run. After the pass it is known where each nonlinearity begins and
    ends, and its operations send the relevance along one path to its beginning.
    """

    def __init__(self) -> None:
        self._elementwise = Elementwise()
        self._value: Value | None = None
        self._inputs: dict[int, dict[int, int]] = {}  # by value: which input of its operation each parent is
        self._numbers: dict[int, int] = {}  # of values; rules hold numbers, as a value would keep the graph alive
        self._ways: dict[int, int] = {}  # by number: the input to which all relevance goes
        self._shifts: set[Value] = set()  # sums of a value and a number in the model's code
        self._behind_shifts: set[Value] = set()  # these, and all values computed from them
        self._biased: set[Value] = set()  # sums with a tensor

    def before(self, call: Call) -> None:
        """Note an operation before it runs."""
        self._value = None
        if call.kind not in _FOLLOWED:
            return
        value = self._elementwise.before(call)
        self._value = value
        if value is None or value.source is None or value.mask:
            return
        live = [*{id(tensor): tensor for tensor in call.tensors if tensor.requires_grad}.values()]
        added = _constant_added(call)
        if _is_number(added):
            self._shifts.add(value)
        elif isinstance(added, Tensor):
            self._biased.add(value)
        if value in self._shifts or not self._behind_shifts.isdisjoint(value.parents):
            self._behind_shifts.add(value)
        self._numbers[id(value)] = len(self._numbers)
        self._inputs[id(value)] = {id(self._elementwise.found(tensor)): at for at, tensor in enumerate(live)}

    def taken(self) -> Value | None:
        """The last note; it is removed."""
        value, self._value = self._value, None
        return value

    def after(self, value: Value | None, call: Call, output: object) -> None:
        """Record the result of an operation."""
        if call.kind in _FOLLOWED:
            self._elementwise.after(value, call, output)

    def led(self, rule: BackwardRule | Through | None, otherwise: BackwardRule) -> BackwardRule | Through | None:
        """The rule of the operation noted last, replaced if the operation lies inside a nonlinearity.

        ``otherwise`` is the rule of an operation whose gradient moves relevance.
        """
        number = self._numbers.get(id(self._value)) if self._value is not None else None
        several = self._value is not None and len(self._inputs.get(id(self._value), ())) > 1
        if number is None or isinstance(rule, Through) or (rule is None and not several):
            return rule
        given, ways = rule or otherwise, self._ways

        def lead(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
            at = ways.get(number)
            if at is None:
                return given(operation, arriving)
            goal = operation.inputs[at]
            return operation.back((goal, arriving.sum_to_size(goal.shape)))

        return lead

    def settle(self) -> None:
        """After the pass: find out where nonlinearities begin and end."""
        inner: set[int] = set()
        for value in reversed(self._elementwise.values):
            begin = (self._recentred(value) or _beginning(value)) if id(value) not in inner else None
            if begin is not None and (way := self._way(value, begin)) is not None:
                self._ways.update(way)
                inner |= {id(item) for item in _before(value, begin)}
        self._elementwise.forget()
        self._elementwise, self._value = Elementwise(), None
        self._inputs.clear()
        self._numbers.clear()
        self._shifts.clear()
        self._behind_shifts.clear()
        self._biased.clear()

    def _recentred(self, value: Value) -> Value | None:
        """The beginning of a nonlinearity whose constants are part of it; None if the value completes none."""
        if value not in self._behind_shifts or value.linear or value.node is None or value.source is None:
            return None
        source = value.source
        for begin in (source, *sorted(_passed(value, source), key=lambda item: len(_before(item, source)))):
            steps = (value, *_before(value, begin))
            fits = begin.node is not None and self._biased.isdisjoint(steps) and not self._shifts.isdisjoint(steps)
            if fits and is_recentred(value, begin):
                return begin
        return None

    def _way(self, value: Value, begin: Value) -> dict[int, int] | None:
        """For each operation on one path from a value to the beginning of its nonlinearity, the input on the path."""
        way: dict[int, int] = {}
        while value is not begin:
            parent = next(iter(_live(value)), value)
            number, at = self._numbers.get(id(value)), self._inputs.get(id(value), {}).get(id(parent))
            if number is None or at is None:
                return None
            way[number] = at
            value = parent
        return way


def _live(value: Value) -> list[Value]:
    """The parents that a gradient reaches."""
    return [parent for parent in value.parents if parent.node is not None and not parent.mask]


def _beginning(value: Value) -> Value | None:
    """The beginning of the nonlinearity that a value completes; None if it completes none of several operations."""
    live = _live(value)
    if value.node is None or value.linear or value.affine or not live:
        return None
    if len(live) > 1:
        begin = _common(value)
        return begin if begin.node is not None else None
    if value.kind not in _FUNCTIONS:
        return None
    inner = live[0]
    while inner.affine and not inner.linear and _live(inner):
        inner = _live(inner)[0]
    if not inner.linear and (inner.kind in _FUNCTIONS or len(_live(inner)) > 1):
        return _beginning(inner) or next(iter(_live(inner)), None)
    return live[0] if value.kind in _WITH_CONSTANT else None


def _constant_added(call: Call) -> Any:
    """The constant that a sum or difference adds to its one value; None if there is none."""
    if call.kind not in _SHIFTS:
        return None
    terms = (call.arguments["input"], call.arguments["other"])
    constants = [term for term in terms if not (isinstance(term, Tensor) and term.requires_grad)]
    return constants[0] if len(constants) == 1 else None


def _is_number(constant: Any) -> bool:
    """Whether a constant is a number in the model's code; a parameter is a bias, even if it is one number."""
    one = isinstance(constant, Tensor) and constant.numel() == 1 and not isinstance(constant, nn.Parameter)
    return one or isinstance(constant, int | float)


def _common(value: Value) -> Value:
    """The last value that lies on all paths from the source to a value."""
    source = value.source or value
    return max(_passed(value, source), key=lambda item: len(_before(item, source)), default=source)


def _passed(value: Value, source: Value) -> list[Value]:
    """The values on all paths from a source to a value, without these two."""
    return [item for item in _before(value, source) if source not in _before(value, item)]


def _before(value: Value, end: Value) -> list[Value]:
    """All values from which a value is computed, up to the ends and without them."""
    found: dict[int, Value] = {}
    queue = _live(value)
    while queue:
        item = queue.pop()
        if item is end or id(item) in found:
            continue
        found[id(item)] = item
        queue += _live(item)
    return list(found.values())
