"""Expensive measurements: taken where a suite asks for them, and refused early where they cannot be."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from pydantic import ValidationError

from baselines import CD, NVIL, SM, AdVIL, PersistentVI, UnbiasedCD
from benchmark.data.datasets import DataSet, load
from benchmark.measures.probes import PROBES, Annealing, Coupling, Couplings, LogZBounds, Subject
from benchmark.records.rundir import RunDir
from bism import GRBM, RBM, BiDSM, Ising, log_likelihood, log_partition
from bism.bias import expected_bias, reference_states
from bism.engine import Trainer
from bism.scaling import Scaling
from tests.contracts.cases import small
from tests.harness.test_datasets import checkerboard
from tests.harness.tiny import TINY, command
from tests.maths.exact import configurations, draws, make_grbm, make_rbm
from tests.maths.learnt_samplers import exact_bound, value_parts

CHEAP_OPTIONS = {"chains": 20, "steps": [1, 2], "tolerance": 0.0001, "raise_chains": 1, "raise_steps": 4}
CHEAP = f"options: {json.dumps(CHEAP_OPTIONS)}".replace('"', "")
PROBED = TINY.replace(
    "        all: {lr: 0.01}\n",
    f"        all: {{lr: 0.01}}\n        probes:\n          - {{name: annealing, at: [7, best, last], {CHEAP}}}\n",
).replace(
    "    model: {name: grbm, hidden: 3}\n",
    "    model: {name: grbm, hidden: 3}\n    rule: best_validation\n",
)


def suite(folder: Path, text: str = PROBED) -> Path:
    """Writes a suite file."""
    file = folder / "tiny.yaml"
    file.write_text(text)
    return file


def test_annealing_agrees_with_enumeration() -> None:
    data = checkerboard(Path("nowhere"), 500, 200, 200)
    trainer = Trainer(SM(lr=0.02), small(SM).model, data.train, seeds=[3])
    trainer.run(100)
    model = trainer.fitted().model(3)
    measured = Annealing(chains=500, steps=[100], raise_steps=100).measure(
        Subject(trainer.fitted(), 3, data, Path("nowhere"))
    )
    exact = -float(model.free_energy(data.test).double().mean()) - log_partition(model)
    assert measured["test/log_likelihood"] == pytest.approx(exact, abs=0.05)
    assert measured["test/log_likelihood_lower"] < exact < measured["test/log_likelihood_upper"]
    assert measured["test/log_likelihood_upper"] - measured["test/log_likelihood_lower"] < 0.1
    assert (measured["ais/level"], measured["ais/contradictory"]) == (0.95, 0)
    assert measured["test/raise_log_likelihood"] == pytest.approx(exact, abs=0.15)
    assert measured["ais/log_z"] == pytest.approx(log_partition(model), abs=0.05)
    assert measured["ais/reverse_log_z_from_exact"] == pytest.approx(log_partition(model), abs=0.05)
    assert (measured["ais/chains"], measured["ais/temperatures"]) == (500, 100)
    assert measured["ais/within_tolerance"] == 1
    assert measured["val/log_likelihood"] != measured["test/log_likelihood"]


def bounds(make: Any, visible: int, hidden: int, scale: float, repeats: int, **options: Any) -> np.ndarray:
    """Lower end, estimate, upper end and truth of the test log-likelihood, for many models [repeats, 4]."""
    v = 0.3 + 1.3 * draws(7).normal((100, visible))
    v = (v > 0.6).double() if make is make_rbm else v
    data, rows = DataSet("points", v, v, v), []
    for seed in range(repeats):
        model = make(visible, hidden, seed=seed)
        with torch.no_grad():
            model.W.mul_(scale)
        fitted: Any = SimpleNamespace(model=lambda _, model=model: model, step=0)
        found = Annealing(raise_chains=0, **options).measure(Subject(fitted, seed, data, Path("nowhere")))
        ends = [found[f"test/log_likelihood{name}"] for name in ("_lower", "", "_upper")]
        rows.append([*ends, float(log_likelihood(model, v).mean())])
    return np.array(rows)


EASY = {"make": make_grbm, "visible": 2, "hidden": 3, "scale": 1.0, "chains": 50, "steps": [1, 2, 4], "tolerance": 0.1}
HARD = {"make": make_grbm, "visible": 4, "hidden": 6, "scale": 2.0, "chains": 50, "steps": [4, 8], "tolerance": 0.1}
LARGER = {
    "make": make_grbm,
    "visible": 20,
    "hidden": 12,
    "scale": 0.7,
    "chains": 100,
    "steps": [10, 100],
    "tolerance": 0.5,
}
BINARY = {"make": make_rbm, "visible": 6, "hidden": 5, "scale": 3.0, "chains": 50, "steps": [4, 8], "tolerance": 0.1}
WIDE = {
    "make": make_rbm,
    "visible": 30,
    "hidden": 12,
    "scale": 1.5,
    "chains": 100,
    "steps": [10, 100],
    "tolerance": 0.5,
}


@pytest.mark.filterwarnings("ignore:seed")  # the tolerance is missed
@pytest.mark.parametrize(
    "case",
    [EASY, HARD, pytest.param(LARGER, marks=pytest.mark.long), BINARY, pytest.param(WIDE, marks=pytest.mark.long)],
    ids=["easy", "hard", "larger", "binary", "wide"],
)
def test_the_bounds_of_a_likelihood_hold_the_truth(case: dict[str, Any]) -> None:
    """In at least 95% of 200 models, and in order always, though AIS alone misses much of Z of the hard ones."""
    lower, estimate, upper, truth = bounds(repeats=200, **case).T
    assert (lower < estimate).all()
    assert (estimate < upper).all()
    assert ((lower <= truth) & (truth <= upper)).sum() >= 190


def test_probes_are_taken_at_their_steps_and_of_the_best_and_last_checkpoint(tmp_path: Path) -> None:
    said = command(tmp_path, "run", "--suite", str(suite(tmp_path)), "--methods", "cd")
    assert said.code == 0, said.err
    with contextlib.closing(RunDir(tmp_path / "runs")) as runs:
        for record in runs.records():
            journal = runs.folder(record.id).measurements()
            evaluated = {
                line.step: line.metrics["val/log_likelihood"] for line in journal if "val/objective" in line.metrics
            }
            assert set(evaluated) == {0, 5, 7, 10, 15, 20}
            best = max(evaluated, key=lambda step: evaluated[step])
            probed = [line.step for line in journal if "ais/log_z" in line.metrics]
            assert probed == list(dict.fromkeys([7, best, 20]))
            for line in journal:
                if "ais/log_z" in line.metrics:  # of the model as it was at that step
                    assert line.metrics["val/log_likelihood"] == pytest.approx(evaluated[line.step], abs=1.0)
            last = journal[-1].metrics
            assert last["selected/step"] == best
            assert last["selected/test/log_likelihood"] == next(
                line.metrics["test/log_likelihood"] for line in reversed(journal[:-1]) if line.step == best
            )
            options = runs.folder(record.id).config["probes"][0]["options"]
            assert options == {**Annealing().model_dump(), **CHEAP_OPTIONS}  # with the defaults
            assert runs.folder(record.id).config["took"]["probe annealing"] > 0
    assert "board CD-1: seed 0, step 7: AIS and reverse AIS differ by" in said.out  # 8 temperatures are not enough


def test_a_shorter_run_leaves_out_what_it_does_not_reach(tmp_path: Path) -> None:
    said = command(tmp_path, "run", "--suite", str(suite(tmp_path)), "--methods", "cd", "--seeds", "0", "--steps", "5")
    assert said.code == 0, said.err
    (config,) = (json.loads(file.read_text()) for file in (tmp_path / "runs").glob("cells/*/config.json"))
    assert config["probes"][0]["at"] == ["best", "last"]


BAD = {
    "name": ("name: annealing", "name: anealing", "no probe 'anealing': did you mean 'annealing'?"),
    "option": ("chains: 20", "chain: 20", "option chain of the probe annealing: unknown; did you mean 'chains'?"),
    "value": ("chains: 20", "chains: 1", "option chains of the probe annealing: must be greater than 1, got 1"),
    "step": ("at: [7,", "at: [70,", "must be at most the preset's 20 steps, got 70"),
    "rule": ("rule: best_validation", "rule: best_test", "no rule 'best_test': did you mean"),
    "noise": ("{method: cd}", "{method: cd, data_noise: -1.0}", "must be at least 0.0, got -1.0"),
}


@pytest.mark.parametrize(("old", "new", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_entry_is_refused_with_its_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in PROBED
    text = PROBED.replace(old, new)
    said = command(tmp_path, "run", "--suite", str(suite(tmp_path, text)))
    assert said.code == 2
    line = 1 + next(i for i, row in enumerate(text.splitlines()) if new.split(",")[0] in row)
    assert f"tiny.yaml:{line}: " in said.err
    assert message in said.err
    assert not (tmp_path / "runs").exists()


def test_data_noise_is_part_of_a_variant_and_of_its_name(tmp_path: Path) -> None:
    text = PROBED.replace("{method: cd}", "{method: cd, data_noise: 0.1}")
    said = command(tmp_path, "run", "--suite", str(suite(tmp_path, text)), "--methods", "cd", "--seeds", "0")
    assert said.code == 0, said.err
    assert "CD-1 [data_noise=0.1]" in said.out
    (config,) = (json.loads(file.read_text()) for file in (tmp_path / "runs").glob("cells/*/config.json"))
    assert config["data_noise"] == 0.1


BIAS = TINY.replace(
    "        all: {lr: 0.01}\n",
    """        all: {lr: 0.01}
        probes:
          - {name: theorem2, at: [0, 20], options: {inner: [0, 2], unroll: [0, 1, 2, 40]}}
          - {name: practical_bias, at: [20], options: {inner: [0, 2], unroll: [0, 2], draws: 3, batch_size: 20}}
          - {name: gradient_bias, at: [20], options: {after: [5, 0], draws: 20, batch_size: 20}}
""",
)


def test_the_gradient_s_bias_along_a_training(tmp_path: Path) -> None:
    chosen = ("--suite", str(suite(tmp_path, BIAS.replace("          - {method: cd}\n", ""))), "--seeds", "4")
    said = command(tmp_path, "run", *chosen)
    assert said.code == 0, said.err
    with contextlib.closing(RunDir(tmp_path / "runs")) as runs:
        (record,) = runs.records()
        folder = runs.folder(record.id)
    studied = [line for line in folder.measurements() if any(name.startswith("bias/") for name in line.metrics)]
    assert [line.step for line in studied] == [0, 20, 20, 20]
    exact, drawn = studied[1].metrics, studied[2].metrics
    # exponential in the end, as Theorem 2 says; over the first few steps it may rise
    assert exact["bias/theorem2_K0_N40"] < exact["bias/theorem2_K0_N0"]
    assert exact["bias/theorem2_distance_K2"] < exact["bias/theorem2_distance_K0"]
    assert exact["bias/theorem2_kappa_K0_low"] < exact["bias/theorem2_kappa_K0"] < exact["bias/theorem2_kappa_K0_high"]
    assert exact["bias/theorem2_alpha"] > 0
    assert exact["bias/theorem1_error"] < 1e-4 < 1e-2 < exact["bias/theorem1_frozen"]
    assert drawn["bias/practical_floor_K2_N2"] > 0
    table = pd.read_csv(folder.artifacts / "bias_theorem2_step_00000020.csv")
    assert len(table) == 2 * 4
    row = table[(table["inner_steps"] == 2) & (table["unroll_steps"] == 40)].iloc[0]
    assert row["bias"] == pytest.approx(exact["bias/theorem2_K2_N40"])
    of_method = studied[3].metrics
    assert {name.removesuffix("_after_0").removesuffix("_after_5") for name in of_method} == {
        f"bias/gradient{which}" for which in ("", "_low", "_high", "_spread", "_true")
    }
    for after in (0, 5):
        low, value, high = (of_method[f"bias/gradient{which}_after_{after}"] for which in ("_low", "", "_high"))
        assert 0 <= low <= value <= high
    estimator, data = BiDSM(lr=0.01), checkerboard(Path("nowhere"), 500, 200, 200).train
    (_, at), *_ = reference_states(estimator, GRBM(2, 3), data, after=[0], batch_size=20)
    found = expected_bias(estimator, GRBM(2, 3), at, data, draws=20, batch_size=20)
    assert of_method["bias/gradient_after_0"] == pytest.approx(max(0.0, found.squared_bias) ** 0.5, rel=1e-5)
    assert of_method["bias/gradient_true_after_0"] == pytest.approx(found.gradient, rel=1e-5)
    assert of_method["bias/gradient_high_after_0"] ** 2 == pytest.approx(
        found.squared_bias + scipy.stats.t.ppf(0.975, 19) * found.error, rel=1e-5
    )
    for name in ("theorem2_step_00000000", "theorem2_step_00000020", "practical_step_00000020"):
        assert matplotlib.image.imread(folder.artifacts / f"bias_{name}.png").std() > 0.05


def test_the_seed_of_the_training_that_it_looks_along_is_checked_before_anything_trains(tmp_path: Path) -> None:
    said = command(tmp_path, "run", "--suite", str(suite(tmp_path, BIAS.replace("draws: 20", "seed: -1"))))
    assert said.code == 2
    assert "option seed of the probe gradient_bias: must be at least 0, got -1" in said.err


def test_a_probe_that_suits_no_variant_is_refused(tmp_path: Path) -> None:
    said = command(tmp_path, "run", "--suite", str(suite(tmp_path, BIAS.replace("          - {method: bidsm}\n", ""))))
    assert said.code == 2
    assert "task board: the probe theorem2 cannot be used: the bias is known for bidsm on a GRBM" in said.err


def test_every_probe_has_a_description_and_options() -> None:
    for name, probe in PROBES.items():
        assert probe.__doc__, name
        assert probe.model_fields, name


def test_a_probe_is_taken_of_the_variants_that_it_suits(tmp_path: Path) -> None:
    said = command(tmp_path, "run", "--suite", str(suite(tmp_path, BIAS)), "--seeds", "0")
    assert said.code == 0, said.err
    with contextlib.closing(RunDir(tmp_path / "runs")) as runs:
        probed = {
            record.method: any("bias/theorem2_K0_N0" in line.metrics for line in runs.folder(record.id).measurements())
            for record in runs.records()
        }
    assert probed == {"cd": False, "bidsm": True}


def test_whether_coupled_chains_meet(tmp_path: Path) -> None:
    data, trained = load({"name": "bars_and_stripes"}, tmp_path), UnbiasedCD(max_steps=2, tries=20)
    fitted = trained.fit(RBM(16, 16), data.train, seeds=[0], steps=0)
    at_start = Coupling(chains=320).measure(Subject(fitted, 0, data, tmp_path))
    # W has not moved from 0 yet: chains are nearly coins with common numbers, and meet as soon as they are coupled
    assert at_start["coupling/not_met"] < 0.2
    assert at_start["coupling/not_met_at_all"] == at_start["coupling/out_of_tries"] == 0
    assert 1.9 < at_start["coupling/meeting_time"] < 2.5
    assert Coupling.unsuitable(trained, RBM(16, 16)) is None
    assert Coupling.unsuitable(CD(), RBM(16, 16)) == "only unbiased_cd couples chains"


def test_the_error_of_couplings(tmp_path: Path) -> None:
    data, trained = load({"name": "ferromagnet"}, tmp_path), PersistentVI(samples=1, k=1)
    fitted = trained.fit(Ising(64), data.train, seeds=[0], steps=0)
    found = Couplings().measure(Subject(fitted, 0, data, tmp_path / "artifacts"))
    # J has hardly moved from N(0, 0.01^2): each of the 64 sites has three of the 192 pairs of neighbours, of 2,016
    assert found["couplings/rms_error_neighbours"] == pytest.approx(0.2, abs=0.005)
    assert found["couplings/rms_error_others"] == pytest.approx(0.01, abs=0.001)
    parts = 192 * found["couplings/rms_error_neighbours"] ** 2 + 1824 * found["couplings/rms_error_others"] ** 2
    assert found["couplings/rms_error"] == pytest.approx((parts / 2016) ** 0.5)
    with np.load(tmp_path / "artifacts" / "couplings_step_00000000.npz") as arrays:
        assert np.abs(arrays["J"] - fitted.model(0).couplings().detach().numpy()).max() == 0
        assert (arrays["log_s"] == -3).all()
    assert Couplings.unsuitable(trained, RBM(2, 2)) == "only Ising models have couplings"


@pytest.mark.parametrize("over", ["visible", "joint"])
def test_nvil_s_bound_of_log_z(tmp_path: Path, over: str) -> None:
    """Its gap is that by enumeration, and the bound from samples is near it where q is near p."""
    v, trained = configurations(3), NVIL(proposal_over=over)
    fitted = trained.fit(make_rbm(3, 2), v, seeds=[0], steps=0, dtype=torch.float64)
    found = LogZBounds().measure(Subject(fitted, 0, DataSet("all", v, v, v), tmp_path))
    model, proposal = fitted.model(0), fitted.part("proposal", 0)
    assert found["log_z/exact"] == pytest.approx(log_partition(model))
    gap = float(exact_bound(trained, model, proposal).detach()) - log_partition(model)
    assert found["log_z/gap"] == pytest.approx(gap, abs=3.5 * found["log_z/gap_stderr"])
    assert 0 < found["log_z/gap_stderr"] < 0.02
    assert found["log_z/upper"] == pytest.approx(log_partition(model) + gap, abs=0.05)
    assert found["log_z/effective_samples"] == pytest.approx(float(np.exp(-2 * gap)), abs=0.05)
    assert LogZBounds.unsuitable(trained, model) is None
    assert LogZBounds.unsuitable(CD(), model) == "only nvil and advil bound log Z"


def test_advil_s_bound_of_log_z(tmp_path: Path) -> None:
    v = configurations(2)
    fitted = AdVIL(codes=1, width=3).fit(make_rbm(2, 2), v, seeds=[0], steps=0, dtype=torch.float64)
    model, decoder = fitted.model(0), fitted.part("decoder", 0)
    found = LogZBounds().measure(Subject(fitted, 0, DataSet("all", v, v, v), tmp_path))
    parts = value_parts(model, fitted.posterior(0), decoder, v)
    assert found["log_z/lower"] == pytest.approx(float(parts["entropy"] - parts["energy"]), abs=0.05)
    assert found["log_z/gap"] == pytest.approx(log_partition(model) - found["log_z/lower"])


def test_the_gap_of_log_z_is_the_same_in_the_data_s_own_units(tmp_path: Path) -> None:
    """Model and proposal are both taken as they were trained, on scaled data."""
    own = torch.randn(200, 2, generator=torch.Generator().manual_seed(1)) * 50 + 300
    scaling = Scaling.standard(own)
    v = scaling.scaled(own).float()
    fitted = NVIL(lr=0.01).fit(GRBM(2, 3), v, seeds=[0], steps=20, compile=False)
    data = DataSet("all", own, own, own)
    plain, scaled = (LogZBounds().measure(Subject(one, 0, data, tmp_path)) for one in (fitted, scaling.fitted(fitted)))
    assert plain == scaled
    assert scaled["log_z/upper"] > scaled["log_z/exact"] - 0.05


@pytest.mark.parametrize("options", [{"steps": [0]}, {"steps": [-5]}, {"chains": 10**9}])
@pytest.mark.parametrize("probe", ["annealing", "bound"])
def test_options_out_of_bounds_are_refused_before_anything_trains(probe: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        PROBES[probe](**options)
