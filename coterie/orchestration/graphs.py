"""Who reads whom: directed graphs made from what agents said, as SelfOrg forms them (arXiv 2510.00685, section 3).

Nodes are agents by their index; an edge source -> target means that the target reads the source. Plain functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EdgeRule = Literal["descent", "tilt"]
CutRule = Literal["rise", "lightest"]


def form(
    similarity: Floats, contributions: Floats, *, edges: EdgeRule, threshold: float, top_k: int | None
) -> nx.DiGraph:
    """A graph in which similar agents read each other; it may have cycles.

    Args:
        similarity: Cosines of the replies, [N, N].
        contributions: One number an agent, [N].
        edges: `descent` (the paper): m -> n where the similarity reaches the threshold and m contributes more than n;
            equal contributions give both directions. `tilt` (the release): any pair that reaches the threshold, each
            target keeping the sources of the highest s_mn (1 + N (c_m - c_n)), which is the edge's weight too.
        threshold: The least similarity of an edge.
        top_k: The most sources of one target; None is all.
    """
    size = len(contributions)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(size))
    gap = contributions[:, None] - contributions[None, :]  # [source, target]
    score = similarity * (1 + size * gap) if edges == "tilt" else similarity
    allowed = (similarity >= threshold) & ~np.eye(size, dtype=bool)
    if edges == "descent":
        allowed &= gap >= 0
    for target in range(size):
        sources = sorted(np.flatnonzero(allowed[:, target]).tolist(),
                         key=lambda m: (-score[m, target], -contributions[m], m))  # fmt: skip
        for source in sources[:top_k]:
            graph.add_edge(source, target, weight=max(0.0, float(score[source, target])))
    return graph


def cut_cycles(graph: nx.DiGraph, contributions: Floats, rule: CutRule) -> nx.DiGraph:
    """The same graph with one edge of every cycle taken out, until it is a DAG.

    `rise` (the paper) takes the edge that leads from a weak to a strong member; in a cycle of more than two, the one
    with the largest rise in contribution. `lightest` (the release) takes the edge of least weight. Ties: smaller ids.
    """
    graph = graph.copy()
    while not nx.is_directed_acyclic_graph(graph):
        graph.remove_edge(*min(nx.find_cycle(graph), key=lambda edge: _cost(graph, contributions, rule, edge)))
    return graph


def draw(size: int, num_edges: int, stream: np.random.Generator) -> nx.DiGraph:
    """A DAG of `size` nodes drawn at random: an order of them, then `num_edges` of the pairs along it."""
    order = stream.permutation(size).tolist()
    pairs = [(order[i], order[j]) for j in range(size) for i in range(j)]
    graph = nx.DiGraph()
    graph.add_nodes_from(range(size))
    graph.add_edges_from(pairs[i] for i in stream.choice(len(pairs), num_edges, replace=False))
    return graph


def _cost(
    graph: nx.DiGraph, contributions: Floats, rule: CutRule, edge: tuple[int, int]
) -> tuple[float, tuple[int, int]]:
    source, target = edge
    if rule == "lightest":
        return graph.edges[edge]["weight"], edge
    rise = float(contributions[target] - contributions[source])
    # Among equals the earlier agent leads, so the edge back to it goes first.
    return (-rise, edge) if rise else (0.0, (target, source))


def levels(graph: nx.DiGraph, contributions: Floats) -> list[list[int]]:
    """The nodes of a DAG in topological levels, each by falling contribution: a level reads only levels before it."""
    generations: Sequence[list[int]] = list(nx.topological_generations(graph))
    return [sorted(level, key=lambda node: (-contributions[node], node)) for level in generations]
