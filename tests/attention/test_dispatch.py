"""How a backend is chosen, forced, and said."""

import logging

import pytest

from coterie.attention.dispatch import VARIABLE, Candidate, choose


@pytest.fixture(autouse=True)
def unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_first_that_can_serve_is_chosen() -> None:
    candidates = [Candidate("triton", "no GPU"), Candidate("cpu"), Candidate("naive")]
    assert choose("some kernel", candidates, why="it is on the CPU") == "cpu"


def test_the_reason_is_logged_once_with_what_was_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coterie.attention.dispatch")
    for _ in range(3):
        choose("logged kernel", [Candidate("triton", "no GPU"), Candidate("cpu")], why="it is on the CPU")
    assert caplog.messages == ["logged kernel runs as cpu: it is on the CPU; not triton: no GPU"]


def test_none_that_can_serve_is_an_error_with_all_refusals() -> None:
    with pytest.raises(ValueError, match="no backend of some kernel .*triton: no GPU; cpu: no numba"):
        choose("some kernel", [Candidate("triton", "no GPU"), Candidate("cpu", "no numba")], why="")


def test_the_variable_forces_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "naive")
    assert choose("some kernel", [Candidate("cpu"), Candidate("naive")], why="") == "naive"


@pytest.mark.parametrize(("forced", "refusal"), [("triton", "no GPU"), ("sdpa", "it has no sdpa form")])
def test_forcing_what_cannot_serve_is_an_error(monkeypatch: pytest.MonkeyPatch, forced: str, refusal: str) -> None:
    monkeypatch.setenv(VARIABLE, forced)
    with pytest.raises(ValueError, match=f"COTERIE_ATTENTION={forced} cannot serve some kernel: {refusal}"):
        choose("some kernel", [Candidate("triton", "no GPU"), Candidate("cpu")], why="")


def test_an_unknown_backend_is_an_error_that_lists_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "cuda")
    with pytest.raises(ValueError, match="COTERIE_ATTENTION=cuda is none of naive, cpu, triton, sdpa"):
        choose("some kernel", [Candidate("cpu")], why="")
