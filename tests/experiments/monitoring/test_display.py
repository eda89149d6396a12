from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from coterie.errors import ConfigError, EngineTimeout
from coterie.experiments.monitoring.display import NoDisplay, RichDisplay, make_display
from coterie.experiments.monitoring.display_plain import PlainDisplay, duration, short
from coterie.experiments.monitoring.tally import Standing, Tally
from coterie.journal import Journal

NEW = Standing({"debate": ("calm", "bold"), "single": ("solo",)}, 4, max_tokens=1000)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def feed(observer: Any, events: Any, clock: Clock | None = None) -> None:
    for event in events:
        if clock:
            clock.now += 1.0
        for turn, verdict in zip(event.turns, event.verdicts, strict=True):
            observer.on_turn(turn, verdict)
        observer.on_episode(event.job, event.outcome, event.verdict)


def rich_text(display: RichDisplay, width: int = 120) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(display.render())
    return console.export_text()


def test_a_tally_counts_episodes_right_answers_turns_and_tokens(events: Any) -> None:
    tally = Tally()
    tally.begin(NEW)
    feed(tally, events)
    view = tally.view()
    assert [(s.label, s.done, s.total, s.correct) for s in view.societies] == [("debate", 4, 4, 3), ("single", 4, 4, 1)]
    assert (view.turns, view.prompt_tokens, view.tokens, view.unparsed_rate) == (20, 200, 80, 7 / 20)


def test_a_resumed_tally_shows_what_an_undisturbed_one_shows(make_run: Any, events: Any) -> None:
    whole, resumed = Tally(), Tally()
    whole.begin(NEW)
    feed(whole, events)
    with Journal.read(make_run(episodes=3).journal) as journal:
        resumed.begin(Standing.read(journal, max_tokens=1000))
    feed(resumed, events[3:])
    one, two = whole.view(), resumed.view()
    assert one.societies == two.societies
    assert (one.turns, one.tokens, one.prompt_tokens, one.unparsed_rate, one.max_tokens) == (
        two.turns, two.tokens, two.prompt_tokens, two.unparsed_rate, two.max_tokens,
    )  # fmt: skip


def test_the_rounds_are_those_of_open_tasks_only(events: Any) -> None:
    tally = Tally()
    tally.begin(NEW)
    first, second = events[0], events[2]
    for turn in (*first.turns, second.turns[0]):
        tally.on_turn(turn, None)
    assert tally.view().societies[0].rounds == (0, 1)
    tally.on_episode(first.job, first.outcome, first.verdict)
    assert tally.view().societies[0].rounds == (0, 0)
    assert tally.view().societies[1].rounds is None


def test_the_token_rate_looks_at_the_last_minute(events: Any) -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.begin(NEW)
    clock.now = 100.0
    tally.on_turn(replace(events[0].turns[0], num_tokens=300), None)
    assert tally.view().rate == 5.0
    clock.now = 159.0
    assert tally.view().rate == 5.0
    clock.now = 161.0
    assert tally.view().rate == 0.0


def test_the_time_left_follows_from_this_attempts_speed(events: Any) -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.begin(replace(NEW, done={"debate": {"a": True, "b": False}}))
    assert tally.view().left is None
    feed(tally, events[:2], clock)
    assert tally.view().left == 4.0


def test_the_rich_display_shows_progress_accuracy_rounds_tokens_and_budget(events: Any) -> None:
    display = RichDisplay(Console(file=io.StringIO()))
    display.begin(NEW)
    feed(display, events[:3])
    display.on_turn(events[4].turns[0], events[4].verdict)
    shown = rich_text(display)
    for part in ("debate", "2/4", "100% (2/2)", "all", "3/8", "10 turns", "100 in", "40 out", "tokens/s", "(14%)"):
        assert part in shown, part


def test_the_rich_display_fits_a_narrow_terminal_and_many_societies(events: Any) -> None:
    display = RichDisplay(Console(file=io.StringIO()))
    display.begin(Standing({f"society-{i}": ("calm",) for i in range(40)}, 4))
    lines = rich_text(display, width=60).splitlines()
    assert "and 28 more" in "\n".join(lines)
    assert max(map(len, lines)) <= 60


def test_what_is_said_stands_above_the_live_picture_and_is_cleaned() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with RichDisplay(console) as display:
        display.say("starting engine vllm \x1b]0;owned\x07[red]now[/red]")
        assert "starting engine vllm [red]now[/red]" in rich_text(display)
    assert "owned" not in out.getvalue()


def test_the_spinner_goes_when_progress_begins() -> None:
    display = RichDisplay(Console(file=io.StringIO()))
    display.say("starting engine scripted")
    display.begin(NEW)
    assert "starting" not in rich_text(display)


def test_the_rich_display_leaves_its_last_picture_behind(events: Any) -> None:
    out = io.StringIO()
    with RichDisplay(Console(file=out, force_terminal=True, width=120)) as display:
        display.begin(NEW)
        feed(display, events)
    assert "8/8" in out.getvalue()


@pytest.mark.parametrize("mode", ["rich", "plain"])
def test_failures_are_shown_a_few_times_and_then_only_counted(mode: str) -> None:
    out = io.StringIO()
    with make_display(mode, Console(file=out, width=200)) as display:
        display.begin(NEW)
        for _ in range(30):
            display.on_failure(EngineTimeout("an engine did not answer", where="engine-0"))
    assert out.getvalue().count("E_TIMEOUT") == 5
    assert "30 failures" in out.getvalue()


def test_the_plain_display_writes_a_line_every_five_seconds_however_much_happens(events: Any) -> None:
    out, clock = io.StringIO(), Clock()
    display = PlainDisplay(out, clock)
    display.begin(NEW)
    for _ in range(200):
        clock.now += 0.1
        display.on_turn(events[0].turns[0], None)
        display.tick()
    assert 4 <= len(out.getvalue().splitlines()) <= 6


def test_the_plain_display_says_after_a_minute_that_nothing_happens(events: Any) -> None:
    out, clock = io.StringIO(), Clock()
    display = PlainDisplay(out, clock)
    display.begin(NEW)
    for _ in range(130):
        clock.now += 1.0
        display.tick()
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("nothing new for 1:00")


def test_the_plain_display_ends_with_the_final_state_in_one_line(events: Any) -> None:
    out = io.StringIO()
    with PlainDisplay(out) as display:
        display.say("starting engine scripted")
        display.begin(NEW)
        feed(display, events)
    first, _, last = out.getvalue().splitlines()
    assert first == "starting engine scripted"
    assert last.startswith("8/8 episodes (100%)")
    assert "debate 75% (3/4), single 25% (1/4)" in last
    assert "\x1b" not in out.getvalue()


def test_a_display_that_never_began_leaves_no_progress_line() -> None:
    out = io.StringIO()
    with PlainDisplay(out) as display:
        display.say("starting")
    assert out.getvalue() == "starting\n"


def test_auto_is_plain_where_there_is_no_terminal_and_none_says_nothing() -> None:
    assert isinstance(make_display("auto", Console(file=io.StringIO())), PlainDisplay)
    with make_display("none") as display:
        display.say("nothing")
    assert isinstance(display, NoDisplay)


def test_auto_is_plain_in_ci_even_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("CI", raising=False)
    assert isinstance(make_display("auto", console), RichDisplay)
    monkeypatch.setenv("CI", "true")
    assert isinstance(make_display("auto", console), PlainDisplay)


def test_an_unknown_display_is_refused() -> None:
    with pytest.raises(ConfigError, match="known: auto, rich, plain, none"):
        make_display("loud")


def test_counts_and_times_are_short() -> None:
    shown = [short(n) for n in (0, 950, 9999, 12_345, 999_400, 4_560_000)]
    assert shown == ["0", "950", "9999", "12.3k", "999k", "4.56M"]
    assert [duration(s) for s in (0.4, 62, 3723)] == ["0:00", "1:02", "1:02:03"]
