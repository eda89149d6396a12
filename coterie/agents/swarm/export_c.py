"""A policy as one plain C99 file, for a drone's own processor."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from coterie.agents.learning.normalisation import LIMIT, NormalisedActor
from coterie.agents.swarm.layers import CONTRAST, Perceptron
from coterie.agents.swarm.networks import Actor
from coterie.types import ObservationLayout

_PIECES = {
    "mlp": [], "deepsets": ["empty"], "attention": ["empty", "attend"], "paper": ["attend", "norm"],
}  # fmt: skip


def to_c(policy: Actor | NormalisedActor, path: str | Path) -> None:
    """Write a policy as C with its weights: `void coterie_policy(const float *observation, float *action)`.

    `action` gets means of continuous actions, which the caller limits to [-1, 1], or a score for each discrete one. The
    file compiles with `gcc -std=c99 -Wall -Werror -O2`, wants <math.h> alone (link with -lm) and allocates nothing.
    Observations are as the world gives them: what normalised them in training is in the file. It computes what the
    policy does, within 1e-5.

    Raises:
        ValueError: A weight is not finite, or the policy is of a kind that C is not written for.
    """
    Path(path).write_text(write_source(policy), "ascii")


def write_source(policy: Actor | NormalisedActor) -> str:
    """The text of the file: see `to_c`."""
    actor = policy.actor if isinstance(policy, NormalisedActor) else policy
    spec, kind = actor.spec, actor.architecture.kind
    if kind not in _PIECES:
        raise ValueError(f"a policy of kind {kind} cannot be written as C, only {', '.join(_PIECES)} can")
    layout = spec.layout or ObservationLayout(spec.observation_size)
    sections = [_head(actor, layout), "#include <math.h>\n", _sizes(actor, layout)]
    if isinstance(policy, NormalisedActor):
        shift, scale = policy.normaliser.terms(spec.observation_size)
        sections += [f"#define LIMIT {_number(LIMIT)}\n", _array("shift", shift), _array("scale", scale)]
    modules = _modules(actor)
    sections += [_array(*named) for name, module in modules.items() for named in _tensors(name, module)]
    sections += [_piece("common"), _piece(actor.architecture.activation)]
    sections += [_perceptron(name, module) for name, module in modules.items() if isinstance(module, Perceptron)]
    is_sorted = kind in ("mlp", "paper") and layout.num_neighbours > 1
    is_normalised = isinstance(policy, NormalisedActor)
    has_obstacles = layout.obstacle_size > 0
    if has_obstacles:
        sections.append(f"#define CONTRAST {_number(CONTRAST)}\n")
    pieces = [*_PIECES[kind], *["empty", "order"] * is_sorted, *["normalise"] * is_normalised]
    pieces += ["sharpen"] * has_obstacles
    steps = {"normalise(x)": is_normalised, "sharpen(x)": has_obstacles, "sort_neighbours(x + ONESELF)": is_sorted}
    sections += [*map(_piece, pieces), _prepare([step for step, is_taken in steps.items() if is_taken])]
    return "\n".join([*sections, _body(kind, modules)])


def _head(actor: Actor, layout: ObservationLayout) -> str:
    spec = actor.spec
    parts = [f"{layout.self_size} of oneself"]
    if layout.num_neighbours:
        parts.append(f"{layout.num_neighbours} neighbours of {layout.neighbour_size} (all zero: nobody)")
    if layout.obstacle_size:
        parts.append(f"{layout.obstacle_size} of obstacles")
    action = "to be limited to [-1, 1]" if spec.action == "continuous" else "a score each: do what has the greatest"
    kind = actor.architecture.kind
    return f"""/* A policy of kind {kind}: from what an agent observes to what it does. Written by Coterie.
 *
 *     void coterie_policy(const float *observation, float *action);
 *
 *     observation[{spec.observation_size}]  {", ".join(parts)}
 *     action[{spec.action_size}]  {action}
 *
 * C99 and <math.h>. Nothing is allocated, and nothing is kept from call to call.
 */
"""


def _sizes(actor: Actor, layout: ObservationLayout) -> str:
    shape, is_paper = actor.architecture, actor.architecture.kind == "paper"
    tokens = min(layout.num_neighbours, 1 if is_paper else layout.num_neighbours) + bool(layout.obstacle_size)
    sizes = {
        "OBSERVATION": actor.spec.observation_size, "ONESELF": layout.self_size, "NEIGHBOURS": layout.num_neighbours,
        "NEIGHBOUR": layout.neighbour_size, "PLACE": min(3, layout.neighbour_size),
        "AT_OBSTACLES": layout.size - layout.obstacle_size, "WIDTH": shape.width, "HEADS": shape.heads,
        "SIZE": shape.head_size if is_paper else shape.width // shape.heads, "SLOTS": max(tokens, 1),
        "JOINT": actor.encoder.final.inputs, "FINAL": shape.final_width,
        "ACTIONS": actor.spec.action_size,
    }  # fmt: skip
    return "enum {\n" + "".join(f"    {name} = {size},\n" for name, size in sizes.items()) + "};\n"


def _modules(actor: Actor) -> dict[str, nn.Module]:
    """What holds weights, under its name in C; perceptrons are functions there."""
    names = {"final": "read_all"}
    parts = {
        names.get(name, f"read_{name}") if isinstance(module, Perceptron) else name: module
        for name, module in actor.encoder.named_children()
    }
    return {**parts, "output": actor.output}


def _tensors(name: str, module: nn.Module) -> list[tuple[str, Tensor]]:
    """The weights of a module: those of the second layer of a perceptron `p` are `p_1_weight` and `p_1_bias`."""
    layers = enumerate(module.layers) if isinstance(module, Perceptron) else []
    named = [(f"{name}_{index}", layer) for index, layer in layers] or [(name, module)]
    return [(f"{owner}_{part}", tensor) for owner, layer in named for part, tensor in layer.named_parameters()]


def _array(name: str, tensor: Tensor) -> str:
    rows = np.atleast_2d(tensor.detach().cpu().float().numpy())
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} holds a number that is not finite")
    lines = "".join(f"    {', '.join(map(_number, row))},\n" for row in rows)
    return f"static const float {name}[{' * '.join(map(str, tensor.shape))}] = {{\n{lines}}};\n"


def _number(value: float) -> str:
    text = f"{value:.9g}"
    return f"{text}f" if set(text) & set(".e") else f"{text}.0f"


def _perceptron(name: str, module: Perceptron) -> str:
    lines, source = [], "x"
    for index, layer in enumerate(module.layers):
        target = "y" if index + 1 == len(module.layers) else f"hidden_{index}"
        if target != "y":
            lines.append(f"float {target}[{layer.out_features}];")
        weights = f"{name}_{index}_weight, {name}_{index}_bias"
        lines.append(f"linear({weights}, {source}, {layer.in_features}, {target}, {layer.out_features});")
        lines.append(f"activate({target}, {layer.out_features});")
        source = target
    body = "".join(f"    {line}\n" for line in lines)
    return f"static void {name}(const float *x, float *y)\n{{\n{body}}}\n"


def _prepare(steps: list[str]) -> str:
    further = "".join(f"    {step};\n" for step in steps)
    return f"""static void prepare(const float *observation, float *x)
{{
    for (int i = 0; i < OBSERVATION; i++)
        x[i] = observation[i];
{further}}}
"""


def _body(kind: str, modules: dict[str, nn.Module]) -> str:
    """The function that is called; what it would read with a perceptron that is not there is left out."""
    lines = _piece(kind).splitlines(keepends=True)
    return "".join(line for line in lines if set(re.findall(r"read_\w+", line)) <= set(modules))


def _piece(name: str) -> str:
    return (files("coterie.agents.swarm.c") / f"{name}.txt").read_text("ascii")
