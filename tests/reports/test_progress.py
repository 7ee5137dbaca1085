"""What a report is at, in a terminal and in a log."""

import io

from rich.console import Console

from reports.progress import Progress


def test_a_log_says_now_and_then_what_is_begun() -> None:
    out, now = io.StringIO(), [0.0]
    with Progress(Console(file=out), lambda: now[0]) as progress:
        for second, what in ((1.0, "a"), (11.0, "figure3 [x]"), (12.0, "c"), (25.0, "d")):
            now[0] = second
            progress.say(what)
    assert out.getvalue() == "figure3 [x]\nd\n"


def test_a_terminal_shows_what_is_begun_at_once() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=True, width=80)) as progress:
        progress.say("grbm, quick: figure3 [x]")
        assert progress._status is not None
        progress._status._live.refresh()
    assert "grbm, quick: figure3 [x]" in out.getvalue()
