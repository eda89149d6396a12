"""Graphs from similarity and contribution."""

import networkx as nx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coterie.orchestration import graphs

PAPER = {"edges": "descent", "threshold": 0.75, "top_k": None}


def similar(size: int, value: float = 0.9) -> np.ndarray:
    return np.full((size, size), value) + (1 - value) * np.eye(size)


def random_case(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(seed)
    vectors = stream.normal(size=(size, 3)) + 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T, stream.integers(0, 4, size=size) / 4


def test_descent_leads_from_the_higher_contribution_to_the_lower():
    graph = graphs.form(similar(3), np.array([0.2, 0.9, 0.5]), **PAPER)
    assert set(graph.edges) == {(1, 0), (1, 2), (2, 0)}


def test_a_pair_below_the_threshold_has_no_edge():
    similarity = similar(3)
    similarity[0, 1] = similarity[1, 0] = 0.7499
    assert set(graphs.form(similarity, np.array([3.0, 2.0, 1.0]), **PAPER).edges) == {(0, 2), (1, 2)}


def test_equal_contributions_read_each_other_until_the_cycle_is_cut():
    contributions = np.array([0.5, 0.5])
    graph = graphs.form(similar(2), contributions, **PAPER)
    assert set(graph.edges) == {(0, 1), (1, 0)}
    assert set(graphs.cut_cycles(graph, contributions, "rise").edges) == {(0, 1)}


def test_the_rise_rule_cuts_the_edge_from_the_weakest_to_the_strongest():
    graph = nx.DiGraph([(0, 1, {"weight": 0.1}), (1, 2, {"weight": 0.9}), (2, 0, {"weight": 0.9})])
    cut = graphs.cut_cycles(graph, np.array([3.0, 2.0, 1.0]), "rise")
    assert set(cut.edges) == {(0, 1), (1, 2)}


def test_the_lightest_rule_cuts_the_edge_of_least_weight():
    graph = nx.DiGraph([(0, 1, {"weight": 0.1}), (1, 2, {"weight": 0.9}), (2, 0, {"weight": 0.9})])
    cut = graphs.cut_cycles(graph, np.array([3.0, 2.0, 1.0]), "lightest")
    assert set(cut.edges) == {(1, 2), (2, 0)}


def test_tilted_edges_keep_the_top_k_sources_by_tilted_similarity():
    similarity = np.array([[1.0, 0.8, 0.9, 0.7], [0.8, 1, 0.8, 0.8], [0.9, 0.8, 1, 0.8], [0.7, 0.8, 0.8, 1]])
    contributions = np.array([0.1, 0.5, 0.2, 0.2])
    graph = graphs.form(similarity, contributions, edges="tilt", threshold=0.75, top_k=1)
    # 0 reads 1: 0.8 (1 + 4 * 0.4) = 2.08 beats 2's 0.9 (1 + 4 * 0.1) = 1.26; 3 is not similar enough.
    assert list(graph.predecessors(0)) == [1]
    assert graph.edges[1, 0]["weight"] == 0.8 * (1 + 4 * 0.4)


def test_a_tilted_weight_is_never_negative():
    graph = graphs.form(similar(3), np.array([0.0, 1.0, 0.0]), edges="tilt", threshold=0.5, top_k=None)
    assert graph.edges[0, 1]["weight"] == 0.0


@given(
    st.integers(0, 10_000),
    st.integers(1, 9),
    st.sampled_from(["descent", "tilt"]),
    st.sampled_from(["rise", "lightest"]),
)
def test_what_is_cut_is_a_dag_of_edges_that_were_there(seed, size, edges, cut):
    similarity, contributions = random_case(seed, size)
    graph = graphs.form(similarity, contributions, edges=edges, threshold=0.2, top_k=None)
    dag = graphs.cut_cycles(graph, contributions, cut)
    assert nx.is_directed_acyclic_graph(dag)
    assert set(dag.edges) <= set(graph.edges)
    assert set(dag.nodes) == set(range(size))


@given(st.integers(0, 10_000), st.integers(1, 9))
def test_a_level_reads_only_levels_before_it_and_the_strongest_source_leads(seed, size):
    similarity, contributions = random_case(seed, size)
    dag = graphs.cut_cycles(graphs.form(similarity, contributions, **PAPER), contributions, "rise")
    depth = {node: i for i, level in enumerate(graphs.levels(dag, contributions)) for node in level}
    assert all(depth[source] < depth[target] for source, target in dag.edges)
    leader = graphs.levels(dag, contributions)[0][0]
    assert contributions[leader] == max(contributions[n] for n in dag if dag.in_degree(n) == 0)


@given(st.integers(0, 200), st.integers(1, 7))
def test_a_drawn_dag_has_as_many_edges_as_asked_for(seed, size):
    stream = np.random.default_rng(seed)
    num_edges = int(stream.integers(size * (size - 1) // 2 + 1))
    graph = graphs.draw(size, num_edges, stream)
    assert nx.is_directed_acyclic_graph(graph)
    assert (set(graph), graph.number_of_edges()) == (set(range(size)), num_edges)


def test_every_edge_of_a_drawn_dag_is_equally_likely():
    counts = np.zeros((4, 4))
    for seed in range(2000):
        for edge in graphs.draw(4, 3, np.random.default_rng(seed)).edges:
            counts[edge] += 1
    off = counts[~np.eye(4, dtype=bool)] / 2000  # each of 12 edges with chance 3 / 12
    assert np.all(np.abs(off - 0.25) < 0.05)
