"""The tracer: one forward pass that intercepts every torch call and module, to record, replace, apply rules or stop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableSet, Set
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from microtome.errors import MicrotomeError, OverwrittenError
from microtome.trace.axes.unit_edits import edits_of
from microtome.trace.backward_rules import RuleSet
from microtome.trace.batch_norm_gradient import align_batch_norm_gradients
from microtome.trace.guard import as_found, named_modules, without_backward_hooks
from microtome.trace.operators.nested_tensors import substitute, tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.signatures import is_inplace, refined
from microtome.trace.operators.spellings import spelling
from microtome.trace.origins import Origins, calling_place, is_transformed, maker
from microtome.trace.tracing import broken_pass, memory_order
from microtome.trace.tracing.caller_modes import callers_autocast
from microtome.trace.tracing.pass_constants import PassConstants
from microtome.trace.tracing.pass_values import PassValues, Stop, main_tensor
from microtome.trace.tracing.watching import INPUT, Observer, Replacement, Rules
from microtome.trace.tracing.written_tensors import WrittenWeights

_REFINABLE = frozenset(("clamp", "clamp_min", "hardtanh", "threshold", "maximum", "max"))


class _Scope:
    """One running module: its name and how often each operator has been called in it."""

    __slots__ = ("counts", "module", "name", "version")

    def __init__(self, name: str, module: nn.Module | None, version: tuple[int, int] | None) -> None:
        self.name, self.module, self.version = name, module, version
        self.counts: dict[str, int] = {}


class Tracer(TorchFunctionMode):
    """One forward pass under watch.

    Parameters
    ----------
    model : nn.Module
        Any module; it is run as written.
    record : iterable of str
        Names of values to keep: a module (``"layer1.0"``), its second call (``"relu#2"``), an
        operation in a module (``"layer1.0/relu.1"``), or what either reads (``"conv2@input"``).
    gradient : bool
        Make gradients available at every recorded value. Nothing before the
        first of them becomes part of the graph.
    live : iterable of str
        Recorded values that are ends, not beginnings, of gradients: scores and objectives.
    rules : Rules, optional
        Backward rules by operator.
    replace : mapping, optional
        Values to exchange: a tensor, or a function of the value.
    stop : bool
        End the pass as soon as all values are recorded.
    observer : Observer, optional
        Told of everything in order.
    backward_hooks : bool
        Whether the backward hooks of the modules take part in gradients; never with rules.
    untouched : set of str
        Names of values that need no copy, as the model is not known to overwrite them; those that it does are removed.

    Attributes
    ----------
    value : dict
        Recorded values, as they were before any later in-place change.
    edge : dict
        Graph edges for gradients with respect to a recorded value.
    overwritten : bool
        Whether a value that was not copied has been overwritten, so that the pass has to be run again.
    """

    def __init__(
        self,
        model: nn.Module,
        record: Iterable[str] = (),
        *,
        gradient: bool = False,
        live: Iterable[str] = (),
        rules: Rules | None = None,
        replace: Mapping[str, Replacement] | None = None,
        stop: bool = True,
        observer: Observer | None = None,
        backward_hooks: bool = True,
        untouched: MutableSet[str] | None = None,
    ) -> None:
        super().__init__()
        self._model = model
        self._values = values = PassValues(
            record,
            replace or {},
            edits_of(model),
            gradient=gradient,
            live=live,
            stop=stop,
            rules=rules,
            observer=observer,
            untouched=set() if untouched is None else untouched,
        )
        self._record, self._touched, self._grad = values.record, values.touched, values.differentiable
        self._rules, self._observer = rules, observer
        self._backward_hooks = backward_hooks and rules is None
        self._modules = modules = named_modules(model)
        self._names = {id(module): name for name, module in modules}
        scripted = any(isinstance(module, torch.jit.ScriptModule) for _, module in modules)
        # Operations are counted in their module and a scripted module is refused where it runs: both need all modules.
        self._all_modules = observer is not None or self._asks_operations()
        self._all_modules |= rules is not None and (rules.asks_places or scripted)
        self._all_modules |= scripted and bool(self._touched)  # a hook of a scripted module's own has to be scripted
        # The operators to look at, where that is known: of the others not even the names are asked.
        sees = None if rules is None or observer is not None or self._asks_operations() else rules.sees
        self._seen = sees  # may grow during the pass
        self._calls: dict[str, int] = {}
        self._scopes: list[_Scope] = []
        self._origins: Origins | None = None
        self._guarded, self._constants, self.overwritten = False, PassConstants(), False
        # Modules whose inputs and outputs hooks of the user's may change.
        self._hooked_inputs: Set[nn.Module] = frozenset()
        self._hooked_outputs: Set[nn.Module] = frozenset()

    def __call__(self, images: Tensor) -> Any:
        """Run the model; returns its output, or None if the pass was stopped.

        Raises
        ------
        ModelError
            When the model itself raises.
        OverwrittenError
            When a gradient is wanted, and the model has written on tensors on which it had never written before.
        """
        grad = self._grad
        # Rules hold for every operation that a gradient passes, so each has to be seen.
        self._origins = self._values.origins = (
            Origins(images, weights_held=True) if self._rules is not None and grad else None
        )
        grad |= any(getattr(part, "differentiable", False) for part in (self._rules, self._observer))
        if self._origins is not None and self._rules is not None and isinstance(self._model, torch.jit.ScriptModule):
            self._rules.opaque("the model, which is scripted or traced,")
        modules = [module for _, module in self._modules]
        hooks = without_backward_hooks([] if self._backward_hooks else modules)
        guarded = as_found(self._model, modules, copies=self._grad)
        with guarded as found, hooks, torch.inference_mode(False), torch.set_grad_enabled(grad):
            self._guarded = True
            try:
                output = self.run_as_is(images)
                if self._origins is not None:
                    self._check_origin((output,) if isinstance(output, Tensor) else tensors(output))
            finally:
                if self._origins is not None:
                    self._origins.release()
            self.overwritten = self._values.settle()  # before tensors of the model are restored, which may be values
            if self._grad:
                align_batch_norm_gradients([*tensors(output), *self.value.values()], images)
        if self._grad and (found.writes_more or found.writes_elsewhere):
            raise OverwrittenError(again=not found.writes_elsewhere)
        return output

    def run_as_is(self, images: Tensor) -> Any:
        """Run the model in the mode that it is in, its weights part of the graph where they learn: for training.

        Raises
        ------
        ModelError
            When the model itself raises.
        OpaqueError
            When microtome raises, not the model.
        """
        readers = memory_order.readers(self._modules) if self._observer is None else []  # it sees what the model reads
        hooks = [*self._input_hooks(), *self._output_hooks()] if self._all_modules or self._touched else []
        if self._all_modules:
            hooks += [register_module_forward_pre_hook(self._enter), register_module_forward_hook(self._leave)]
        else:  # each before the user's hooks, where hooks of all modules stand
            for module in self._touched_modules():
                hooks.append(module.register_forward_pre_hook(self._enter, prepend=True))
                hooks.append(module.register_forward_hook(self._leave, prepend=True))
        hooks += [module.register_forward_pre_hook(self._in_order, with_kwargs=True) for module in readers]
        try:
            self._scopes.append(_Scope("", None, None))
            with callers_autocast(), self if self._needs_operations() else nullcontext():
                return self._model(images)
        except Stop as stop:
            if stop.values is not self._values:
                raise
            return None
        except (MicrotomeError, torch.cuda.OutOfMemoryError):  # what runs out of memory is run again in parts
            raise
        except Exception as error:
            where = self._scopes[-1].name if self._all_modules else broken_pass.place(error, self._names)
            self._scopes.clear()  # the hooks do nothing from now on
            raise self._blamed(error, where, images) from error
        finally:
            for hook in hooks:
                hook.remove()
            self._scopes.clear()

    def _blamed(self, error: Exception, where: str, images: Tensor) -> MicrotomeError:
        return broken_pass.blamed(
            error,
            images,
            where=where,
            runs_plainly=lambda: self._guarded and self._runs_plainly(images),
            watched=self._rules is not None or bool(self._values.replace),
            looking=getattr(self._rules, "name", "") or getattr(self._observer, "name", "") or "reading the network",
        )

    def _runs_plainly(self, images: Tensor) -> bool:
        """Whether the model runs on these images without the tracer and without gradients."""
        if getattr(self._rules, "differentiable", False):  # no images, only what stands for them
            return False
        try:
            with torch.no_grad(), callers_autocast():
                self._model(images.detach().clone())
        except Exception:
            return False
        return True

    def _needs_operations(self) -> bool:
        return self._rules is not None or self._observer is not None or self._asks_operations()

    def _asks_operations(self) -> bool:
        return any("/" in name for name in self._touched)

    # -- modules -------------------------------------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        path = self._names.get(id(module))
        if not path or not self._scopes or is_transformed():  # the root, an unknown module, or another thread's pass
            return
        count = self._calls[path] = self._calls.get(path, 0) + 1
        name = path if count == 1 else f"{path}#{count}"
        first = args[0] if args and isinstance(args[0], Tensor) else None
        # Asking a tensor costs as much as a small operation, so only where the answer is used.
        version = None
        if first is not None and name in self._touched and not first.is_inference():
            version = id(first), first._version
        self._scopes.append(_Scope(name, module, version))
        if self._rules is not None and isinstance(module, torch.jit.ScriptModule):
            self._rules.opaque(f'the scripted or traced module "{name}"')
        if first is not None and name + INPUT in self._record and module not in self._hooked_inputs:
            self._values.keep(name + INPUT, first)
        if self._observer is not None:
            self._observer.enter(name, module, args)

    def _touched_modules(self) -> list[nn.Module]:
        """The modules whose values, at any call, are recorded, edited or replaced."""
        paths = {name.removesuffix(INPUT).partition("#")[0] for name in self._touched}
        return [module for name, module in self._modules if name in paths] if paths else []

    def _input_hooks(self) -> list[RemovableHandle]:
        """Hooks on the modules whose inputs are recorded.

        Only a module's own hook gets keyword arguments, and inputs that the user's hooks have changed.
        """
        paths = {name.removesuffix(INPUT).partition("#")[0] for name in self._record if name.endswith(INPUT)}
        modules = [module for name, module in self._modules if name in paths] if paths else []
        plain = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
        self._hooked_inputs = {module for module in plain if module._forward_pre_hooks}
        return [module.register_forward_pre_hook(self._enter_by_own_hook, with_kwargs=True) for module in plain]

    def _output_hooks(self) -> list[RemovableHandle]:
        """Hooks on the modules with user hooks: they run last and see the value that the network uses."""
        hooked = [module for _, module in self._modules[1:] if module._forward_hooks]
        self._hooked_outputs = {module for module in hooked if not isinstance(module, torch.jit.ScriptModule)}
        return [module.register_forward_hook(self._leave_by_own_hook) for module in self._hooked_outputs]

    def _enter_by_own_hook(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        positional = tensors(args)
        inputs = positional or tensors(kwargs)
        if inputs and (not positional or module in self._hooked_inputs) and self._scopes[-1].module is module:
            name = self._scopes[-1].name + INPUT
            if name in self._record:
                self._values.keep(name, inputs[0])

    def _in_order(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> memory_order.Arguments | None:
        """Lay out what a module reads; these operations are not the model's and get other names."""
        if not self._scopes:  # after an error
            return None
        self._scopes.append(_Scope(f"{self._scopes[-1].name}/order", None, None))
        try:
            return memory_order.in_order(module, args, kwargs)
        finally:
            self._scopes.pop()

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return None if module in self._hooked_outputs else self._leave_by_own_hook(module, args, output)

    def _leave_by_own_hook(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not self._runs(module):
            return None
        while self._scopes[-1].module is not module:  # a submodule whose exception the model swallowed
            self._scopes.pop()
        scope = self._scopes.pop()
        if self._observer is not None:
            self._observer.leave(scope.name, module, output)
        if scope.name not in self._touched:
            return None
        value = main_tensor(output, scope.name)
        inplace = scope.version is not None and scope.version[0] == id(value) and scope.version[1] != value._version
        passed = self._values.pass_on(scope.name, value, inplace)
        return None if passed is value else substitute(output, {id(value): passed})

    def _runs(self, module: nn.Module) -> bool:
        scopes = self._scopes
        return bool(scopes) and (scopes[-1].module is module or any(scope.module is module for scope in scopes))

    # -- operations ----------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See one torch call."""
        kwargs = kwargs or {}
        if self._values.paused or is_transformed():
            return func(*args, **kwargs)
        spelled = spelling(func)
        if spelled is None:
            answer = func(*args, **kwargs) if self._rules is None else self._rules.ask(func, args, kwargs)
            self._constants.note(getattr(func, "__name__", ""), args, answer)
            if self._origins is not None and isinstance(answer, Tensor):  # zeros_like: the model may write on it
                self._origins.add(answer)
            return answer
        kind = spelled.kind
        if self._origins is not None:
            if kind == "grad" and self._rules is not None:
                self._rules.opaque(f"a gradient that the model takes itself in {calling_place()}")
            self._check_origin(args)
            if kwargs:
                self._check_origin(kwargs)
            if self._origins.cut:
                args, kwargs = substitute(args, self._origins.cut), substitute(kwargs, self._origins.cut)
        if self._seen is not None and kind not in self._seen and not spelled.foreign:
            output = func(*args, **kwargs)
            self._constants.note(kind, args, output)
            if self._origins is not None:
                self._origins.add(output)
            return output
        if kind in _REFINABLE:
            kind = refined(kind, args, kwargs, self._constants.__contains__)
        inplace = is_inplace(spelled, args, kwargs)
        scope = self._scopes[-1]
        count = scope.counts.get(kind, 0)
        scope.counts[kind] = count + 1
        name = f"{scope.name}/{kind}.{count}" if count else f"{scope.name}/{kind}"
        call = Call(kind, func, args, kwargs, inplace, name, spelled.foreign)
        if name + INPUT in self._record:
            self._values.keep(name + INPUT, call.input)
        output = call.run() if self._rules is None else self._rules.run(call)
        self._constants.note(kind, args, output)
        if self._origins is not None:
            self._origins.add(output)
        if self._observer is not None:
            self._observer.operation(call, output)
        if name not in self._touched:
            return output
        value = main_tensor(output, name)
        passed = self._values.pass_on(name, value, inplace)
        return output if passed is value else substitute(output, {id(value): passed})

    def _check_origin(self, read: Any) -> None:
        """Refuse a tensor that no seen operation has computed."""
        stranger = self._origins.stranger(read) if self._origins is not None else None
        if stranger is not None and self._rules is not None:
            self._rules.opaque(maker(stranger))

    # -- values --------------------------------------------------------------------------------------------------

    @property
    def value(self) -> dict[str, Tensor]:
        """Recorded values, as they were before any later in-place change."""
        return self._values.value

    @property
    def edge(self) -> dict[str, Tensor | GradientEdge]:
        """Graph edges for gradients with respect to a recorded value."""
        return self._values.edge

    def content(self, value: Tensor) -> Tensor:
        """The content of a value of this pass, which may be represented by a tensor without content."""
        return self._values.content(value)

    @property
    def missing(self) -> frozenset[str]:
        """Names of requested values that did not occur."""
        return self._values.missing


broken_pass.calls_the_model(
    Tracer.run_as_is, Tracer.__torch_function__, Call.run, RuleSet.ask, WrittenWeights.__torch_function__
)
