"""Files of results: what is written is read, and whatever else is in one is said in a message."""

import copy
import gzip
import itertools
import json
import math
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.records import reference, sharing
from benchmark.records.metrics import SPLITS, STUDIES, is_measured
from benchmark.records.reference import SHIPPED, UNPACKED, header_of, read, shipped
from benchmark.records.results import ENDED, Variant, thinned
from bism.errors import InputError
from tests.harness.shared import LL, TWO, again, lines, packed, seed, variant, written
from tests.harness.tiny import ROOT

MOST = 3_000_000  # bytes of all files that ship


# --- what is written is read ------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    odd = variant("Odd [β=0.1]", [1.0])
    odd["seeds"] = [
        {"seed": 3, "state": "diverged", "error": "not finite at step 7",
         "last": {LL: math.nan, "val/objective": -math.inf},
         "curves": {LL: {"steps": [0, 5], "values": [1e-300, math.nan]}}},
        {"seed": 4, "state": "planned"},
    ]  # fmt: skip
    path = written(tmp_path / "a.jsonl.gz", *TWO, odd, label="a smoke ranking", trained=["2026-01-01", "2026-01-02"])
    found = read(path)
    assert found.header.label == "a smoke ranking"
    assert (found.header.variants, found.header.cells) == (3, 6)
    for given, kept in zip((*TWO, odd), found.variants, strict=True):
        whole = Variant.model_validate(given).model_dump()
        assert json.dumps(kept.model_dump()) == json.dumps(whole)  # so that NaN equals NaN
    assert found.variants[0].seeds[0].last[LL] == 0.123456789  # all of its digits
    assert found.seeds(["board"]) == [0, 1, 3]


def test_the_same_content_makes_the_same_bytes_and_anybody_can_read_them() -> None:
    content = packed(*TWO)
    assert content == packed(*copy.deepcopy(TWO))
    assert content[4:8] == b"\0\0\0\0"  # no time, and (flags 0) no file's name
    assert content[3] == 0
    first, one, two = lines(content)
    assert (first["format"], first["version"], first["suite"]) == ("bism-results", 1, "tiny")
    assert [one["variant"], two["variant"]] == ["CD-1", "CD-5"]
    assert one["seeds"][0]["last"][LL] == 0.123456789


@pytest.mark.parametrize("count", [1, 2, 5, 51, 52, 400])
def test_a_thinned_curve_keeps_its_ends_and_what_was_chosen(count: int) -> None:
    steps = [10 * i for i in range(count)]
    kept = list(thinned(steps, 51, kept=[steps[count // 3], 7]))
    assert {0, count - 1, count // 3} <= set(kept)
    assert len(kept) == min(count, 51) or (count > 51 and len(kept) == 52)
    gaps = {b - a for a, b in itertools.pairwise(kept)}
    assert not gaps or max(gaps) <= math.ceil((count - 1) / 50)


# --- damage -----------------------------------------------------------------------------------------------------------


def refused(path: Path, content: bytes, words: str) -> None:
    """One message, that names the file and says this."""
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert words in said, said
    assert len(said) < 1500
    assert "\n" not in said


def _bit(content: bytes) -> bytes:
    return content[:200] + bytes([content[200] ^ 16]) + content[201:]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: b"", "its end is missing"),
        (lambda content: content[:-1], "its end is missing: it was cut"),
        (lambda content: content[:300], "its end is missing: it was cut"),
        (_bit, "was damaged"),
        (lambda content: content + b"more", "4 bytes follow after its end"),
        (lambda content: content + content, "bytes follow after its end"),
        (gzip.decompress, "it is not compressed by gzip"),
        (lambda content: b"PK\3\4" + content, "it is not compressed by gzip"),
        (lambda content: gzip.compress(b"suite: tiny\n\n"), "line 1 is no JSON"),
        (lambda content: gzip.compress(b'{"a": 1}\n{}\n'), "its first line must say format: bism-results"),
        (lambda content: gzip.compress(b"[]\n[]\n"), "line 1 must be a mapping"),
        (lambda content: gzip.compress(b"{}"), "it has no lines"),
        (lambda content: gzip.compress(b"\xff\xfe\n{}\n"), "line 1 is no JSON"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-40]), "its last line was cut"),
        (lambda content: gzip.compress(gzip.decompress(content).replace(b"0.123456789", b"0.923456789")),
         "its content is not what was exported, for its checksum is another"),
    ],
)  # fmt: skip
def test_a_file_that_was_damaged_or_altered(tmp_path: Path, damage: Callable[[bytes], bytes], words: str) -> None:
    refused(tmp_path / "a.jsonl.gz", damage(packed(*TWO)), words)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range((UNPACKED >> 20) + 1)), packer.flush()])
    assert len(zeros) < 100_000
    refused(tmp_path / "a.jsonl.gz", zeros, f"more than {UNPACKED:,} bytes are packed into its {len(zeros):,}")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    refused(tmp_path / "a.jsonl.gz", bytes(reference.BYTES + 1), "has at most 8,388,608 bytes")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("0/version", 2, "is of format 2, and this version of the package reads up to 1"),
        ("0/version", "1", "line 1: version"),
        ("0/version", 0, "line 1: version"),
        ("0/suite", "../../etc", "line 1: suite: must have no '/'"),
        ("0/preset", "..", "line 1: preset: is a folder's own name"),
        ("0/tasks", ["a\0b"], "line 1: tasks.0: must have no '/'"),
        ("0/tasks", ["other"], "line 2: no task 'board'"),
        ("0/commands", ["cat /etc/passwd"], "line 1: commands.0: must name no folder and no address"),
        ("0/variants", 3, "has 2 variants, and its first line says 3"),
        ("0/cells", 5, "has 4 cells, and its first line says 5"),
        ("0/cells", 10**20, "line 1: cells: must be at most 200,000"),
        ("0/sha256", "x", "line 1: sha256: must be a hash of 64 hexadecimal digits, got 'x'"),
        ("0/trained", ["May"], "line 1: trained.0: must be a day as in 2026-01-31, got 'May'"),
        ("0/trained", ["2026-02-30"], "line 1: trained.0: must be a day that there is, got '2026-02-30'"),
        ("1/data_hash", "zz", "line 2: data_hash: must be a hash of at most 64 hexadecimal digits, got 'zz'"),
        ("1/threads", "few", "line 2: threads: must be a whole number of at most 5 digits, got 'few'"),
        ("0/more", 1, "line 1: more: unknown key"),
        ("0/suite", ..., "line 1: suite: this key is missing"),
        ("1", [], "line 2 must be a mapping"),
        ("1/method", "a b", "line 2: method: must consist of letters, digits, '_' and '-', got 'a b'"),
        ("1/method", 5, "line 2: method: must be a text, got 5"),
        ("1/variant", "a\nb", "line 2: variant: must be one line without control characters"),
        ("1/variant", "CD [w=/home/me/w.pt]", "line 2: variant: must name no folder"),
        ("1/variant", "$\\frac{$", "line 2: variant: must have no two '$'"),
        ("1/variant", "x" * 501, "line 2: variant: must have at most 500 characters"),
        ("1/variant", "CD-5", "line 3: seed 0 of CD-5, board, is given twice"),
        ("1/steps", 0, "line 2: steps: must be greater than 0"),
        ("1/steps", 20.5, "line 2: steps"),
        ("1/steps", True, "line 2: steps"),
        ("1/steps", 10, "the curve test/log_likelihood of seed 0 goes beyond iteration 10"),
        ("1/param/lr", 0.1, "line 2: param.lr: must be a text"),
        ("1/param/weights", "C:\\Users\\me\\w.pt", "line 2: param.weights: must name no folder"),
        ("1/compiled", "perhaps", "line 2: compiled"),
        ("1/seeds", [], "line 2: seeds: needs at least 1"),
        ("1/seeds/1/seed", 0, "line 2: it: seed 0 is given 2 times"),
        ("1/seeds/1/seed", -1, "line 2: seeds.1.seed: must be at least 0"),
        ("1/seeds/1/seed", "1", "line 2: seeds.1.seed: must be an integer"),
        ("1/seeds/1/state", "won", "line 2: seeds.1.state"),
        ("1/seeds/1/last", {"val/objective": 1.0}, "the curve test/log_likelihood of seed 1 has no last value"),
        ("1/seeds/1", {"seed": 1, "state": "done"}, "seed 1 is done and has no metrics"),
        ("1/seeds/1/state", "planned", "seed 1 is planned and has metrics"),
        ("1/seeds/1/last/test~log_likelihood", "good", 'must be a number, "nan", "inf" or "-inf", got \'good\''),
        ("1/seeds/1/last/test~log_likelihood", None, "must be a number"),
        ("1/seeds/1/last/test~log_likelihood", True, "must be a number"),
        ("1/seeds/1/last/test~log_likelihood", 1e301, 'must be 1e+300 at most in size, or "inf" or "-inf", got 1e+301'),
        ("1/seeds/1/last/selected~step", -1, "selected/step of seed 1 must be an iteration, got -1.0"),
        ("1/seeds/1/last/selected~step", 1.5, "selected/step of seed 1 must be an iteration, got 1.5"),
        ("1/seeds/1/last/selected~step", "inf", "selected/step of seed 1 must be an iteration, got inf"),
        ("1/seeds/1/last/selected~step", "nan", "selected/step of seed 1 must be an iteration, got nan"),
        ("1/seeds/1/last/selected~step", 1000, "selected/step of seed 1 is beyond iteration 20"),
        ("1/seeds/1/last/time~ms_per_step", -1.0, "time/ms_per_step of seed 1 must be 0 at least, got -1.0"),
        ("1/seeds/1/last/test~log_likelihood", 0.9, "ends at 0.2, and its last value is 0.9"),
        ("1/seeds/1/last/test~score", 0.9, "no such metric, got 'test/score'"),
        ("1/seeds/1/last/my~score", 0.9, "no such metric, got 'my/score'"),
        ("1/seeds/1/last/time~..~..", 0.9, "no such metric, got 'time/../..'"),
        ("1/seeds/1/curves/test~log_likelihood/steps", [0, 10], "has 2 steps and 3 values"),
        ("1/seeds/1/curves/test~log_likelihood/steps", [0, 10, 10], "steps must rise"),
        ("1/seeds/1/curves/test~log_likelihood/steps", [0, 10.5, 20], "steps.1"),
        ("1/seeds/1/curves/test~log_likelihood/values", [0.0, [1.0], 0.2], "values.1: must be a number"),
    ],
)  # fmt: skip
def test_a_file_that_somebody_has_edited(tmp_path: Path, place: str, value: Any, words: str) -> None:
    parts = lines(packed(*TWO))
    *way, last = [int(part) if part.isdecimal() else part.replace("~", "/") for part in place.split("/")]
    target: Any = parts
    for part in way:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    refused(tmp_path / "a.jsonl.gz", again(parts, summed=place != "0/sha256"), words)


def test_one_name_is_of_one_way_to_train(tmp_path: Path) -> None:
    """Seeds of another machine have a line of their own; those of other hyper-parameters need another name."""
    path = tmp_path / "a.jsonl.gz"
    one, two = variant("CD-1", [0.1, 0.2], param={"lr": "0.1"}), variant("CD-1", [0.3, 0.4], param={"lr": "0.1"})
    for number, of in enumerate(two["seeds"]):
        of["seed"] = 2 + number
    written(path, one, two | {"git_commit": "f" * 40, "param": {"lr": "0.1", "k": "1"}})
    assert len(read(path).variants) == 2
    for changed, words in (({"param": {"lr": "0.2"}}, "lr"), ({"method": "pcd", "steps": 40}, "method, steps")):
        written(path, one, two | changed)
        with pytest.raises(InputError, match=rf"line 3: CD-1, board, differs from line 2 in {words}: "):
            read(path)
    planned = {"seeds": [{"seed": 2, "state": "planned"}], "param": {"lr": "0.2"}}  # of which there is no result
    written(path, one, two | planned)
    assert len(read(path).variants) == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0.123456789", "NaN", 'line 2 is no JSON as we write it: numbers must be finite, and others be written "nan"'),
        ("0.123456789", "-Infinity", "numbers must be finite"),
        ("0.123456789", "1e999", "a number is too large"),
        ("0.123456789", "0." + "1" * 5000, "a number is too large, or has more than 25 digits"),
        ("0.123456789", "9" * 5000, "a number has 5,000 digits"),
        ('"steps": 20', '"steps": 20, "steps": 20', "the key 'steps' is given twice"),
        ('"steps": 20', '"steps": ' + "[" * 100_000, "line 2 is no JSON as we write it: it lies too deep"),
        ('"steps": 20', '"steps": 20,,', "line 2 is no JSON"),
    ],
)
def test_a_line_that_only_looks_like_ours(tmp_path: Path, old: str, new: str, words: str) -> None:
    first, one, two = lines(packed(*TWO))
    text = json.dumps(one)
    assert old in text
    refused(tmp_path / "a.jsonl.gz", again([first, text.replace(old, new, 1), two]), words)


def test_whatever_is_changed_at_random_is_a_message_or_a_file_of_results(tmp_path: Path) -> None:
    """In the packed bytes, and in the lines by somebody who mends the checksum."""
    random, content, path = np.random.RandomState(0), packed(*TWO), tmp_path / "a.jsonl.gz"
    first, *others = gzip.decompress(content).decode().splitlines()
    said = list[str]()
    for place in range(400):
        if place % 2:
            changed = bytearray(content)
            for _ in range(random.randint(1, 4)):
                changed[random.randint(len(changed))] = random.randint(256)
            path.write_bytes(bytes(changed))
        else:
            text = list("\n".join(others))
            for _ in range(random.randint(1, 4)):
                text[random.randint(len(text))] = random.choice(list('0-e.NaI[]{}",:tru \\/\x00\u2028'))
            path.write_bytes(again([json.loads(first), *"".join(text).split("\n")]))
        try:
            read(path)
        except InputError as error:
            said.append(str(error))
    assert len(said) > 300
    assert all(text.startswith(f"{path}: ") and "\n" not in text for text in said)


def test_no_file_a_folder_and_a_pipe_are_said(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for name, words in (("none", "no such file of results"), ("", "it is a folder"), ("pipe", "it is a named pipe")):
        with pytest.raises(InputError, match=words):
            read(tmp_path / name)


def test_the_header_is_read_by_itself(tmp_path: Path) -> None:
    parts = lines(packed(*TWO))
    parts[1]["steps"] = "wrong"
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(again(parts))
    assert header_of(path).preset == "test"


# --- what is told of where it was made --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("python -m benchmark run --suite grbm", "python -m benchmark run --suite grbm"),
        (".venv/bin/python -m benchmark run --suite /home/me/x.yaml --run-dir /data/me --seeds 0-3 --shard 1/4",
         "python -m benchmark run --suite x.yaml --seeds 0-3 --shard 1/4"),
        ("python -m benchmark compare --suite=../me/x.yaml --plugin me/mine.py --set mine.w=/me/w.pt --dry-run",
         "python -m benchmark compare --suite x.yaml --plugin mine.py --set mine.w=w.pt"),
        ("python -m benchmark run --tracking-uri http://me:secret@host/ --data-dir ~/data --methods cd pcd",
         "python -m benchmark run --methods cd pcd"),
        ("python -m benchmark sync --run-dir /home/me", ""),
        ("python -c 'import me'", ""),
        ("it's", ""),
    ],
)  # fmt: skip
def test_a_command_is_told_without_places(given: str, told: str) -> None:
    assert sharing.command(given) == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("Mine [weights=/home/me/w.pt, K=5]", "Mine [weights=w.pt, K=5]"),
        ("from ~me/x and file:///home/me/y", "from x and y"),
        ("C:\\Users\\me\\w.pt", "w.pt"),
        ("sqlite:////home/me/a.db", "a.db"),
        ("../me/w.pt", "w.pt"),
        ("password=tiger", "password=***"),
        ("1/2 of v/h in nats / s, BiDSM-5 [K=5]", "1/2 of v/h in nats / s, BiDSM-5 [K=5]"),
    ],
)
def test_a_text_is_told_without_places_and_secrets(given: str, told: str) -> None:
    assert sharing.plain(given) == told
    assert not sharing.names_a_place(told)


def test_a_value_that_is_a_relative_path_is_told_by_its_name() -> None:
    assert [sharing.value(text) for text in ("me/w.pt", "me\\w.pt", "0.1", "same")] == ["w.pt", "w.pt", "0.1", "same"]


def test_only_what_the_program_says_of_a_divergence_is_told() -> None:
    assert sharing.diverged("not finite at step 1,234") == "not finite at step 1,234"
    assert sharing.diverged("FileNotFoundError: /home/me/w.pt") == ""


# --- what ships -------------------------------------------------------------------------------------------------------


def test_what_ships_is_sound_small_and_named_by_what_it_is() -> None:
    files = sorted(SHIPPED.glob("*"))
    assert sum(file.stat().st_size for file in files) < MOST
    assert {path.name for path in shipped().values()} == {file.name for file in files}
    for (suite, preset), path in shipped().items():
        found = read(path)
        assert path.name == f"{suite}-{preset}{reference.ENDING}"
        assert found.header.commands
        for one in found.variants:
            assert re.fullmatch("[0-9a-f]{40}", one.git_commit) or all(s.state not in ENDED for s in one.seeds)
            assert one.machine or all(s.state not in ENDED for s in one.seeds)


def test_what_ships_tells_nothing_of_whose_machine_it_was() -> None:
    import getpass
    import platform

    for path in shipped().values():
        text = gzip.decompress(path.read_bytes()).decode()
        assert not re.search(r"/(home|root|tmp|Users|work|var|mnt)\b|\\\\Users|://", text)
        assert f'"{platform.node()}"' not in text
        assert f'"{getpass.getuser()}"' not in text


def test_what_ships_is_in_the_wheel() -> None:
    import tomllib

    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["reports"]
    assert f"reference/*{reference.ENDING}" in data


def test_metrics_are_those_that_the_package_measures() -> None:
    for name in ("test/log_likelihood", "val/fisher_divergence", "train/objective", "ais/gap", "time/train_seconds",
                 "selected/test/log_likelihood", "selected/step", "test/log_likelihood_bound_examples_stderr",
                 "bias/theorem2_K5_N10", "latent/labels_10_accuracy", "val/ais_effective_samples",
                 "val/not_met"):  # fmt: skip
        assert is_measured(name), name
    for name in (
        "log_likelihood",
        "test/",
        "test/score",
        "test/not_met",
        "val/Not met",
        "val/../x",
        "mine/score",
        "selected/time/x",
        "ais/a b",
        "ais/../x",
        "",
    ):
        assert not is_measured(name), name


def test_what_probes_measure_is_exported() -> None:
    """By the beginnings of names in their code: those of a probe that is new would be left out."""
    code = "".join(file.read_text() for file in (ROOT / "benchmark" / "measures" / "probes").glob("*.py"))
    begun = {name for name in re.findall(r'f?"([a-z_]+)/[a-z_{]', code) if name not in SPLITS}
    assert begun > {"ais", "class_kept", "latent"}
    assert begun <= set(STUDIES)


def test_a_seed_s_own_numbers_are_what_stands_in_a_reference() -> None:
    """The helper that other tests rely on."""
    assert Variant.model_validate(variant("A", {7: 0.5})).seeds[0].model_dump() == {
        "error": "", **seed(7, 0.5)
    }  # fmt: skip
