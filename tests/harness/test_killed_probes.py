"""Jobs that are killed at the end of expensive measurements, before what was measured is written."""

from pathlib import Path
from typing import Any

import pytest

from benchmark.probes import PROBES
from tests.harness.tiny import DEEP_DIGITS, command, journal, states, write

SUITE = (
    DEEP_DIGITS
    + """\
        all: {lr: 0.001, lower: fisher, K: 2, N: 0, sigma_min: 0.1}
        probes:
          - name: samples
            at: [2, last]
            options: {count: 12, batch: 8, schedule: &short [{steps: 3, first: 10, last: 1}]}
          - {name: conditional, at: [last], options: {schedule: *short, joint: *short}}
          - {name: features, at: [last]}
          - {name: out_of_distribution, at: [last]}
        variants: [{method: bimdsm}]
"""
)
LETHAL = """\
import dataclasses, multiprocessing, os, pathlib, signal
from baselines import DSM
from benchmark.probes import PROBES

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(DSM):  # a plug-in adds something
    id, label, reference = "mine", "Mine", "here"

def once(name, measure):
    def measured(self, subject):
        found = measure(self, subject)
        mark = pathlib.Path("killed-" + name)
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    return measured

if multiprocessing.parent_process() is not None:  # in jobs; the command runs in the process of the tests
    for name, kind in PROBES.items():
        kind.measure = once(name, kind.measure)
"""
RUN = ("run", "--suite", "deep.yaml", "--plugin", "lethal.py")


def measured(folder: Path) -> list[dict[str, Any]]:
    """The journal, but for what time and memory it took."""
    lines = journal(folder, "BiMDSM-0", 0)
    kept = [{name: value for name, value in line["metrics"].items() if not name.startswith(("time/", "memory/"))}
            for line in lines]  # fmt: skip
    return [{"step": line["step"], **metrics} for line, metrics in zip(lines, kept, strict=True)]


@pytest.mark.long
def test_what_was_measured_is_measured_once_and_the_end_is_the_same(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        write(folder, SUITE, "deep.yaml")
        write(folder, LETHAL, "lethal.py")
    names = ["samples", "conditional", "features", "out_of_distribution"]
    assert set(names) < set(PROBES)
    for name in names:
        (whole / f"killed-{name}").touch()
    assert command(whole, *RUN).code == 0
    for _ in range(len(names)):
        if command(killed, *RUN).code == 0:
            break
    assert set(states(killed).values()) == {"done"}
    assert {file.name for file in killed.glob("killed-*")} == {f"killed-{name}" for name in names}
    assert measured(killed) == measured(whole)
