"""Every way of training gives the numbers of the CPU."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves, tree_map

from baselines import DSM
from bism import Estimator, stream
from bism.engine import Trainer
from tests.contracts.cases import data, discovered, kinds, same, small, trainer
from tests.gpu.device import DEVICE, capturing, distance, gpu_alone, here, on_the_device
from tests.gpu.parallel import side_by_side
from tests.harness.tiny import CORES

pytestmark = on_the_device
every_kind = pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.id)
COMPILING_SECONDS = 400


@pytest.fixture(scope="module")
def _compiled_already(request: pytest.FixtureRequest) -> None:
    """The programs of the estimators that are asked for, compiled on all cores at once: one takes half a minute."""
    wanted = [item.callspec.params["kind"].id for item in request.session.items if _compiles(item)]  # type: ignore[attr-defined]
    programs = [["-m", "tests.gpu.compiling", name] for name in dict.fromkeys(wanted)]
    share = {"TORCHINDUCTOR_COMPILE_THREADS": "1"} if len(programs) > 1 else {}
    for code, said in side_by_side(programs, COMPILING_SECONDS, CORES, share):
        assert code == 0, said


def _compiles(item: pytest.Item) -> bool:
    return "_compiled_already" in getattr(item, "fixturenames", ()) and hasattr(item, "callspec")


def go(mine: Trainer) -> Trainer:
    """60 steps, in replays of many and of one."""
    mine.run(23)
    mine.run(37)
    return mine


def asked(mine: Trainer) -> list[torch.Tensor]:
    """What is measured of it."""
    lower = mine.lower_objective_on(data(50))
    return [mine.mean_objective(), mine.objective_on(data(50)), *([] if lower is None else [lower])]


@every_kind
@pytest.mark.usefixtures("_compiled_already")
def test_60_steps_are_the_same_on_the_cpu_and_here_compiled_or_not_captured_or_not(kind: type[Estimator]) -> None:
    case = small(kind)
    with capturing(False):
        of_the_cpu = go(trainer(case))
        answers = asked(of_the_cpu)
    expected = of_the_cpu._tensors
    for compiled, captured in ((False, True), (True, False), (True, True)):
        with capturing(captured):
            mine = go(here(case, compiled))
            found = asked(mine)
        how = f"compiled {compiled}, captured {captured}"
        assert mine.captured == captured, how
        assert all(str(leaf.device).startswith(DEVICE) for leaf in tree_leaves(mine._tensors))
        assert distance(mine._tensors, expected) < 1e-10, how
        assert distance(found, answers) < 1e-10, how
    assert distance(expected, trainer(case)._tensors) > 1e-3  # it has trained


@every_kind
def test_where_blocks_end_changes_nothing(kind: type[Estimator], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = here(small(kind))
    for limit in ("_GPU_LONGEST_BLOCK", "_LONGEST_BLOCK"):
        monkeypatch.setattr(stream, limit, 7)
    parts = here(small(kind))
    assert parts.stream.block_steps == 7
    whole.run(30)
    for steps in (1, 12, 17):
        parts.run(steps)
    assert same(whole._tensors, parts._tensors)


@every_kind
def test_a_seed_that_diverges_is_frozen_and_harms_no_other(kind: type[Estimator]) -> None:
    healthy, sick = here(small(kind), seeds=(0, 1, 2)), here(small(kind), seeds=(0, 1, 2))
    healthy.run(5)
    sick.run(5)
    given = tree_map(torch.clone, sick._tensors)
    next(iter(given["state"]["params"]["model"].values()))[1] = float("nan")
    sick._tensors = tree_map(torch.clone, given)
    for mine in (healthy, sick):
        mine.run(16)
    assert sick.diverged_at == sick.fitted().diverged_at == [None, 5, None]
    assert healthy.diverged_at == [None, None, None]
    of_seed = [tree_map(lambda x, i=i: x[i], (sick._tensors, healthy._tensors)) for i in range(3)]
    assert all(same(*of_seed[i]) for i in (0, 2))
    before = tree_leaves(tree_map(lambda x: x[1], given["state"]))
    pairs = zip(before, tree_leaves(of_seed[1][0]["state"]), strict=True)
    assert all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in pairs)


@every_kind
def test_a_seed_alone_is_the_seed_in_a_group(kind: type[Estimator]) -> None:
    group, alone = here(small(kind), seeds=(0, 3, 7)), here(small(kind), seeds=(3,))
    group.run(50)
    alone.run(50)
    assert distance(tree_map(lambda x: x[1:2], group._tensors), alone._tensors) < 1e-10


@every_kind
def test_60_steps_are_23_steps_a_checkpoint_and_37_steps(
    kind: type[Estimator], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("resumed") / "half.pt"
    whole, half, rest = (here(small(kind)) for _ in range(3))
    whole.run(60)
    half.run(23)
    half.save(file)
    rest.load(file)
    rest.run(37)
    assert same(whole._tensors, rest._tensors)
    assert rest.step == 60


def test_two_trainers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has graphs and buffers of its own."""
    kinds = [kind for kind in discovered() if kind.id in ("bidsm", "pcd")]
    alone, together = [here(small(kind)) for kind in kinds], [here(small(kind)) for kind in kinds]
    for mine in alone:
        mine.run(30)
    for steps in (10, 1, 19):
        for mine in together:
            mine.run(steps)
    assert all(same(one._tensors, other._tensors) for one, other in zip(alone, together, strict=True))


@gpu_alone
def test_a_replay_is_one_launch() -> None:
    """What is recorded is replayed and not called: ten short steps are one launch."""
    mine = here(small(DSM))
    mine.run(10)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        mine.run(10)
    launches = {event.key: event.count for event in seen.key_averages()}
    assert launches.get("cudaGraphLaunch") == 1, launches
