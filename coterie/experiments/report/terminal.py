"""The summary of a run on one screen of a terminal; plain where the output is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from coterie.experiments.report.deception import deception_parts
from coterie.experiments.report.layout import break_label, make_table, plain, short_span
from coterie.experiments.report.wording import (
    bill,
    count,
    count_tests,
    duration,
    fairest,
    focus,
    grading_timeouts,
    headline,
    number,
    p_value,
    percent,
    progress,
    signed,
)

_COLORS = {"yes": "green", "no": "yellow", "unclear": "cyan", "open": "cyan"}
_MOST_PAIRS = 5
FINDS = "finds: the smallest difference that so many tasks find, 80 % power at 5 %"


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Show a run's summary: the answer, accuracy against baselines, rounds, who convinced whom, cost and failures."""
    for part in _parts(summary):
        console.print(part)


def _parts(summary: dict[str, Any]) -> Iterator[RenderableType]:
    answer = headline(summary)
    yield Text(answer.short, style=f"bold {_COLORS[answer.answer]}")
    yield plain(answer.sentence)
    if partial := progress(summary):
        yield plain(partial, "yellow")
    if summary["facts"]["totals"] is None:
        return
    if deception := summary["facts"]["deception"]:
        yield from deception_parts(deception)
        yield from map(plain, _closing(summary))
        return
    yield _accuracy(summary)
    society = focus(summary)
    if society is not None and len(society["rounds"]) > 1:
        yield _rounds(society)
        yield from _persuasion(society)
    if society is not None and society["self_evaluation"] is not None:
        yield from map(plain, _confidence(society))
    yield from map(plain, _closing(summary))


def _accuracy(summary: dict[str, Any]) -> Table:
    """One row per society; then its difference to the fairest baseline, in points, and what the tests say of it."""
    facts = summary["facts"]
    found = {s["label"]: fairest(summary, s["label"]) for s in facts["societies"] if not s["is_baseline"]}
    rival = next((c for c in found.values() if c is not None), None)
    compared = [_rival_head(rival), "p", "Holm", "finds"] if rival is not None else []
    table = make_table("society", ["right %", "95 %", *compared, "tokens"])
    for society in sorted(facts["societies"], key=lambda s: bool(s["is_baseline"])):
        if society["is_baseline"] and table.rows and not table.rows[-1].style:
            table.add_section()
        cells = [
            percent(society["accuracy"]).removesuffix("\u00a0%"),
            short_span(society["interval"] if society["tasks"] else None),
        ]
        if rival is not None:
            cells += difference_cells(found.get(society["label"]))
        cost = society["cost"]["per_task"]
        row = (break_label(society["label"]), *cells, number(cost["tokens"] if cost else None))
        table.add_row(*map(plain, row), style="dim" if society["is_baseline"] else "")
    return table


def _rival_head(comparison: dict[str, Any]) -> str:
    return "equal\ntokens" if comparison["matched"] == "equal tokens" else f"vs\n{comparison['baseline']}"


def difference_cells(comparison: dict[str, Any] | None) -> list[str]:
    """A comparison in four columns: difference, p, corrected p, what could have been found; empty where none is."""
    if comparison is None or comparison["difference"] is None:
        return ["", "", "", ""]
    mark = "*" if comparison.get("is_beyond") else ""
    finds = comparison["detectable"]
    return [
        f"{signed(comparison['difference'])}{mark}", _short_p(comparison["p"]), _short_p(comparison["p_holm"]),
        "n/a" if finds is None else number(100 * finds, 1),
    ]  # fmt: skip


def _short_p(p: float | None) -> str:
    return p_value(p).replace("0.", ".").replace(" ", "")


def _rounds(society: dict[str, Any]) -> Table:
    table = make_table("round", ["agents right", "distinct answers", "unparsed"])
    for moment in society["rounds"]:
        cells = (
            str(moment["round"]), percent(moment["agent_accuracy"]), number(moment["distinct_answers"], 2),
            percent(moment["unparsed_rate"]),
        )  # fmt: skip
        table.add_row(*cells)
    return table


def _persuasion(society: dict[str, Any]) -> Iterator[Text]:
    """Those who changed most minds, most first."""
    found = society["persuasion"]
    pairs = [
        (found["total"][i][j], found["beneficial"][i][j], found["harmful"][i][j], source, target)
        for i, source in enumerate(found["agents"])
        for j, target in enumerate(found["agents"])
        if found["total"][i][j]
    ]
    if not pairs:
        yield plain(f"Nobody took over another's answer in {society['label']}.")
        return
    yield plain(f"Who convinced whom in {society['label']} (changes of mind, to right / to wrong):")
    for total, good, bad, source, target in sorted(pairs, key=lambda pair: -pair[0])[:_MOST_PAIRS]:
        yield plain(f"  {source} -> {target}: {number(total, 1)} ({number(good, 1)} / {number(bad, 1)})")


def _confidence(society: dict[str, Any]) -> Iterator[str]:
    """What agents said of their own answers, by probe."""
    yield f"How sure agents of {society['label']} were of their answers (AUROC: does it tell right from wrong?):"
    for name, found in society["self_evaluation"]["measures"].items():
        unparsed = f"{percent(found['unparsed_rate'])} of {count(found['replies'], 'reply')} unparsed"
        sure = "" if found["last"] is None else f"{percent(found['last'])} sure, AUROC {number(found['auroc'], 2)}, "
        yield f"  {name}: {sure}{unparsed}"


def _closing(summary: dict[str, Any]) -> Iterator[str]:
    facts, telemetry = summary["facts"], summary["telemetry"]
    if any(c["matched"] != "as asked" for c in facts["comparisons"]):
        yield "equal tokens: against self_consistency with as many samples as the society's tokens buy, in points"
    if tests := count_tests(facts["comparisons"]):
        yield f"Holm: p corrected for all {count(tests, 'test')} of the report; {FINDS}"
    if any(c.get("is_beyond") for c in facts["comparisons"]):
        yield "* all its samples cost less than this society; raise `samples` of self_consistency for an equal budget"
    sharing = facts["sharing"]
    if sharing["shared"]:
        asked, distinct = number(sharing["asked_per_task"]), number(sharing["distinct_per_task"])
        yield f"Shared turns: {distinct} distinct per task instead of {asked}"
    for society in facts["societies"]:
        for reward, means in society["rewards"].items():
            earned = ", ".join(f"{agent} {number(mean, 3)}" for agent, mean in means.items())
            yield f"Reward {reward}, mean per turn in {society['label']}: {earned or 'none yet'}"
    cost, times = facts["totals"]["cost"], telemetry["totals"]
    money = f", {bill(facts['totals']['money'])}" if facts["totals"]["money"] else ""
    yield (
        f"Cost: {number(cost['calls'])} calls, {number(cost['prompt_tokens'])} prompt tokens "
        f"({number(cost['non_cached_prompt_tokens'])} not cached), {number(cost['generated_tokens'])} generated{money}"
    )
    rate = f", {number(times['tokens_per_second'])} tokens/s" if times["tokens_per_second"] else ""
    attempts = count(times["attempts"], "attempt")
    yield f"Time: {duration(times['seconds'])} in {attempts}{rate}; {_failures(telemetry['failures'])}"
    if ungraded := grading_timeouts(facts["totals"]):
        yield f"Grading: {ungraded}"
    yield f"Digest: {facts['digest']}"


def _failures(failures: dict[str, Any]) -> str:
    codes = ", ".join(f"{n} x {code}" for code, n in failures["by_code"].items())
    return f"failures: {codes}" if codes else "no failures"
