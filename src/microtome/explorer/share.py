"""A frozen view: one HTML file that opens from disk, with all numbers in full precision and the code for them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from microtome import registry, units
from microtome.atlas.engine import one_thread
from microtome.errors import InputError, MicrotomeError
from microtome.explorer.answers.unit_answers import linear_layer_of
from microtome.explorer.live_network import LiveNetwork, changes
from microtome.explorer.questions import Shared
from microtome.loading import RunConfig

__all__ = ["SharedView", "frozen", "python_call", "read_shared"]

_DATA = re.compile(r'<script type="application/json" id="view">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True, eq=False)
class SharedView:
    """The content of a frozen view.

    Attributes
    ----------
    state : dict
        Layer, unit, class, methods, changed units.
    call : str
        The Python code that computes the same numbers.
    image : Tensor
        (1, C, H, W), the picture in the network's range.
    tensors : dict of str to Tensor
        ``scores`` (1, K), ``activations`` of the layer, ``explanation`` (the method's values), ``projection``
        (of the unit), and where the layer has a dissection ``contributions`` (J, h, w).
    """

    state: dict[str, Any]
    call: str
    image: Tensor
    tensors: dict[str, Tensor]


def frozen(live: LiveNetwork, image: Tensor, asked: Shared, address: str = "") -> bytes:
    """The file of a view; everything is recomputed on one thread, so that its code gives the same bits.

    Parameters
    ----------
    live : LiveNetwork
    image : Tensor
        (1, C, H, W).
    asked : Shared
        The content of the view.
    address : str
        The state in the explorer's address.
    """
    with one_thread():
        tensors, notes = _computed(live, image, asked)
    net = live.net
    number, name = live.label(asked.picture)
    state = {
        **json.loads(asked.model_dump_json()),
        "address": address,
        "name": live.name,
        "fingerprint": live.edited(asked.edits).fingerprint,
        "classes": net.classes,
        "label": number,
        "image": name,
        "pixels": net.pixels,
        "small": live.small,
        "signed": registry.method(asked.method, registry.EXPLAINING).signed,
        "output": net.output,
        "notes": notes,
    }
    view = {
        "state": state,
        "call": python_call(live, asked, "contributions" in tensors),
        "tensors": {key: _written(value) for key, value in {"image": image, **tensors}.items()},
    }
    return _page(view).encode()


def _computed(live: LiveNetwork, image: Tensor, asked: Shared) -> tuple[dict[str, Tensor], list[str]]:
    """The numbers, by the same calls that ``python_call`` writes."""
    net, notes = live.edited(asked.edits), []
    method = registry.method(asked.method, registry.EXPLAINING)
    found = {
        "scores": net.logits(image),
        "activations": units.activation_maps(net, image, asked.layer)[asked.layer],
        "explanation": method.function(net, image, asked.target).values,
        "projection": units.project_back(net, image, asked.layer, asked.unit, method=asked.projection).values,
    }
    try:
        linear = linear_layer_of(net, asked.layer)
        found["contributions"] = units.dissect(net, image, linear, asked.unit).contributions
    except MicrotomeError as error:
        notes.append(str(error))
    return {name: value.detach().cpu() for name, value in found.items()}, notes


def python_call(live: LiveNetwork, asked: Shared, dissected: bool) -> str:
    """Python code that computes the same numbers, from the network's options and the file itself."""
    method = registry.method(asked.method, registry.EXPLAINING)
    lines = [
        "import torch",
        "from microtome import units",
        "from microtome.explorer import read_shared",
        f"from {method.function.__module__} import {method.function.__name__}",
        *(["from microtome.loading import RunConfig"] if live.config is not None else []),
        "",
        "torch.set_num_threads(1)  # sums over several threads are rounded in another order",
        'view = read_shared("view.html")  # this file',
        f"net = {_network(live.config)}",
        "image = view.image" + _source(asked.picture),
    ]
    edits = changes(asked.edits)
    if edits:
        lines.append(f"net = units.intervene(net, {', '.join(f'{kind}={value!r}' for kind, value in edits.items())})")
    lines += [
        "scores = net.logits(image)",
        f"activations = units.activation_maps(net, image, {asked.layer!r})[{asked.layer!r}]",
        f"explanation = {method.function.__name__}(net, image, {asked.target!r}).values",
        f"back = units.project_back(net, image, {asked.layer!r}, {asked.unit}, method={asked.projection!r})",
        "projection = back.values",
    ]
    if dissected:
        linear = linear_layer_of(live.net, asked.layer)
        lines.append(f"contributions = units.dissect(net, image, {linear!r}, {asked.unit}).contributions")
    return "\n".join(lines) + "\n"


def _network(config: RunConfig | None) -> str:
    if config is None:
        return "...  # the microtome.Network that the explorer was started with"
    settings = {name: value for name, value in config.to_json().items() if value is not None and name != "classes"}
    for name in ("weights", "data"):
        if name in settings and os.path.isabs(str(settings[name])):
            settings[name] = os.path.relpath(settings[name])
    if config.classes is not None and config.data is None:
        settings["classes"] = tuple(config.classes)
    text = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f"RunConfig({text}).{'open().net' if config.data is not None else 'network()'}"


def _source(picture: str) -> str:
    source, _, number = picture.partition(":")
    return f"  # subject.pictures([{number}]) of the data set" if source == "data" else ""


def read_shared(source: str | os.PathLike[str] | bytes) -> SharedView:
    """Read a frozen view: a file's path, or its content.

    Raises
    ------
    InputError
        The file cannot be read, or is not a frozen view.
    """
    try:
        text = (source if isinstance(source, bytes) else Path(source).read_bytes()).decode()
        found = _DATA.search(text)
        if found is None:
            raise ValueError("it holds no view")
        view = json.loads(found[1])
        tensors = {name: _read(value) for name, value in view["tensors"].items()}
        return SharedView(view["state"], view["call"], tensors.pop("image"), tensors)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"this file is not a frozen view of the explorer: {error}.") from error


def _written(value: Tensor) -> dict[str, Any]:
    value = value if value.dtype == torch.float64 else value.float()  # half precisions fit into float32 exactly
    array = value.detach().cpu().contiguous().numpy()
    little = array.astype(array.dtype.newbyteorder("<"))
    content = base64.b64encode(little.tobytes()).decode()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "base64": content}


def _read(value: Mapping[str, Any]) -> Tensor:
    if value["dtype"] not in ("float32", "float64"):
        raise ValueError(f"numbers of {value['dtype']}")
    dtype = np.dtype(value["dtype"]).newbyteorder("<")
    flat = np.frombuffer(base64.b64decode(value["base64"]), dtype)
    return torch.from_numpy(flat.astype(value["dtype"]).reshape(value["shape"]))


def _page(view: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("microtome.explorer.site"), autoescape=True, undefined=StrictUndefined
    )
    # No name can end the script: every "<" within the data is written as an escape of JSON.
    data = json.dumps(view, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    styles = f"{asset('style.css')}\n{asset('explorer.css')}"
    scripts = "\n".join(asset(name) for name in ("colours.js", "shared.js"))
    return environment.get_template("shared.html").render(
        view=view,
        data=Markup(data),  # noqa: S704 - escaped above
        styles=Markup(styles),  # noqa: S704 - files of this package
        scripts=Markup(scripts),  # noqa: S704 - files of this package
        policy=f"default-src 'none'; img-src data: blob:; style-src {_hash(styles)}; script-src {_hash(scripts)}",
    )


def _hash(text: str) -> str:
    """The digest by which a page's security policy allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def asset(name: str) -> str:
    """A script or style sheet of the explorer; the main style sheet is that of the atlas."""
    package = "microtome.atlas.site" if name == "style.css" else "microtome.explorer.site"
    return resources.files(package).joinpath("assets", name).read_text(encoding="utf-8")
