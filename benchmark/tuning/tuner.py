"""The work on one study: asks for trials in groups, trains those of one structure side by side, tells."""

import contextlib
import dataclasses
import math
import threading
import time
from pathlib import Path
from typing import Any, Protocol

import optuna
import torch
from optuna.trial import TrialState

from benchmark.data.datasets import DataSet
from benchmark.measures.evaluation import evaluate, evaluation_steps
from benchmark.records.selection import better
from benchmark.tasks import registry
from benchmark.tasks.models import build_model
from benchmark.tuning import leases
from benchmark.tuning.storage import patiently
from benchmark.tuning.study import REPORTS, TIME, StudySettings, find_method, read
from bism.cohort import Alone, Cohort, Member, OneByOne, call_counts, structure
from bism.engine import pays
from bism.errors import InputError, described, message
from bism.fitted import Fitted

GROUP = 16  # trials of a process under way
_PLACES = {"cpu": 8, "cuda": 32}  # of a cohort, at most
_SMALL = 60_000  # numbers in the activations of one seed's minibatch: more of them fill a core alone
_PIECE_SECONDS = 1.0  # between looks at whether to stop
_REFUSALS = 100  # in a row, after which a space is taken to have nothing that the method takes


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much is to be done of a study, by all who work on it.

    trials: in all; None for as many as the budget allows.
    budget: training seconds.
    """

    trials: int | None
    budget: float | None = None


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What all of a command's processes are given.

    names: the studies, in this order.
    limits: of each.
    together: how many processes share a study's trials.
    deadline: on the clock of ``time.time``.
    """

    storage: str
    names: tuple[str, ...]
    limits: tuple[Limits, ...]
    plugins: tuple[Path, ...]
    threads: int
    together: int
    lease: float = leases.LEASE_SECONDS
    compile: bool | None = None
    deadline: float | None = None


@dataclasses.dataclass
class Lane:
    """A trial under way: what Optuna knows of it, and its training.

    best: the validation value of each seed by the task's rule, signed so that higher is better.
    value: the first objective at the last intermediate step.
    spent: training seconds, its share of what its cohorts took.
    """

    trial: optuna.Trial
    member: Member | Alone
    best: list[float]
    value: float = math.nan
    spent: float = 0.0

    @property
    def is_paper(self) -> bool:
        """Whether these are the paper's values, which are trained to the end: tuning is never to end below them."""
        return self.trial.user_attrs.get("origin") == "paper"


class Trains(Protocol):
    """What trains configurations: a ``Cohort``, or ``OneByOne``."""

    @property
    def places(self) -> int: ...
    def begin(self, estimator: Any) -> Any: ...
    def advance(self, members: Any, steps: int) -> None: ...
    def fitted(self, member: Any) -> Fitted: ...


class Tuner:
    """Works on one study.

    Args:
        stop: set when everything is to be given back.
    """

    def __init__(
        self,
        study: optuna.Study,
        data: DataSet,
        lease: leases.Lease,
        work: Assignment,
        limits: Limits,
        device: str,
        stop: threading.Event,
        note: Any,
    ) -> None:
        self.study, self.data, self.lease, self.work, self.device = study, data, lease, work, device
        self.settings: StudySettings = read(study)
        self.limits = limits
        self.lanes: list[Lane] = []
        self._stop, self._note = stop, note
        self._method = find_method(self.settings.method, registry.methods(work.plugins))
        self._model = build_model(self.settings.config["model"])
        self._cohorts: dict[Any, Trains] = {}
        self._reports = evaluation_steps(self.settings.steps, REPORTS)[1:]
        self._reclaimed, self._refused = -math.inf, 0

    def has_work(self) -> bool:
        """Whether there are trials to ask for, those included whose workers have died."""
        self._reclaim()
        return bool(self._safely(self._wanted)) and self._refused < _REFUSALS

    def is_settled(self) -> bool:
        """Whether no trial may come back: none is under way anywhere."""
        return not self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def run(self) -> None:
        """Until the study has what it is to have and nothing of ours is under way; or until it is to stop."""
        patiently(lambda: self.lease.take(self.study), self._stop)
        try:
            while not self._stop.is_set():
                self._fill()
                if self.lanes:
                    self._advance(self._next())
                elif not self.has_work():
                    return
        finally:
            for lane in list(self.lanes):
                with contextlib.suppress(Exception):  # the storage may be away; then the lease runs out
                    leases.give_back(self.lease.storage, self.study, self._frozen(lane), "interrupted")

    # --- asking -----------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Asks for trials where enough places are free, and for those of workers that have died."""
        if time.monotonic() > self._reclaimed + self.work.lease / 4:
            self._reclaim()
        if len(self.lanes) > GROUP // 2:
            return
        for _ in range(self._safely(self._wanted) or 0):
            if self._stop.is_set() or self._refused >= _REFUSALS or not self._ask():
                return

    def _reclaim(self) -> None:
        given: Any = (self.lease.storage, self.study, self.work.lease, self.limits.trials)
        for what in self._safely(lambda: leases.reclaim(*given)) or ():
            self._note(f"{self.study.study_name}: {what}")
        self._reclaimed = time.monotonic()

    def _wanted(self) -> int:
        """How many more trials to ask for now: a fair share of what is left of the study."""
        free = GROUP - len(self.lanes)
        if self._budget_spent():
            return 0
        if self.limits.trials is None:
            return free
        trials = leases.counted(self.study.get_trials(deepcopy=False))
        begun = sum(trial.state != TrialState.WAITING for trial in trials)
        left = self.limits.trials - begun
        return max(0, min(free, math.ceil(left / self.work.together)))

    def _budget_spent(self) -> bool:
        """Whether all trials of the study, whoever trained them, have taken the training seconds that it has."""
        budget = self.limits.budget
        return budget is not None and leases.train_seconds(self.study.get_trials(deepcopy=False)) >= budget

    def _ask(self) -> bool:
        """Begins a trial, or fails it where its values do not go together; False where the study has enough."""
        trial: optuna.Trial | None = self._safely(lambda: self.study.ask(self.settings.distributions))
        if trial is None:
            return False
        self._safely(lambda: trial.set_user_attr("worker", self.lease.worker))
        if self._safely(lambda: self._is_surplus(trial)):  # another process was faster
            self._safely(lambda: trial.set_user_attr("surplus", True))
            self._safely(lambda: self._fail(trial, "not needed: the study has its trials, or this one twice"))
            return False
        try:
            estimator = self._method(**self.settings.hyper(trial.params))
            member = self._cohort(estimator).begin(estimator)
        except BaseException as error:  # of the method, a plug-in (sys.exit too), or a lack of memory
            text = message(error) if isinstance(error, InputError) else described(error)
            self._safely(lambda: self._fail(trial, text))
            self._refused += 1
            if self._refused == _REFUSALS or not isinstance(error, InputError):
                self._note(f"{self.study.study_name}: trial {trial.number} failed: {text}")
            return True
        self._refused = 0
        self.lanes.append(Lane(trial, member, [-math.inf] * len(self.settings.seeds)))
        return True

    def _is_surplus(self, trial: optuna.Trial) -> bool:
        trials = self.study.get_trials(deepcopy=False)
        return leases.is_surplus(trials, trials[trial.number], self.limits.trials)

    def _fail(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    # --- training ---------------------------------------------------------------------------------------------------

    def _cohort(self, estimator: Any) -> Trains:
        """Where a configuration trains: beside others of its structure, or alone where it trains in stages."""
        key = structure(estimator)
        if key not in self._cohorts:
            config, steps = self.settings.config, self.settings.steps
            setting: Any = {
                "seeds": self.settings.seeds,
                "batch_size": config["batch_size"],
                "device": self.device,
                "compile": pays(steps) if self.work.compile is None else self.work.compile,
                "data_noise": config["data_noise"],
                "precision": config["precision"],
            }
            self._cohorts[key] = (
                Cohort(estimator, self._model, self.data.train, places=self._places(), **setting)
                if len(estimator.stages) == 1
                else OneByOne(self._model, self.data.train, iterations=steps, **setting)
            )
        return self._cohorts[key]

    def _places(self) -> int:
        """How many configurations train side by side at most."""
        model: Any = self._model
        most = _PLACES[torch.device(self.device).type]
        units = math.prod(model.visible_shape) + (model.latent.size if model.latent else 0)
        activations = self.settings.config["batch_size"] * units
        return min(most, max(1, _SMALL * most // 8 // activations))

    def _next(self) -> list[Lane]:
        """Who is trained next: the most that share a structure and an iteration; of equals, who has come least far.

        So the survivors of several groups gather at a rung until they fill the places of those that were pruned.
        """
        groups: dict[Any, list[Lane]] = {}
        for lane in self.lanes:
            groups.setdefault((structure(lane.member.estimator), lane.member.step), []).append(lane)

        def preference(group: list[Lane]) -> tuple[int, int]:
            return min(len(group), self._cohort(group[0].member.estimator).places), -group[0].member.step

        chosen = max(groups.values(), key=preference)
        chosen.sort(key=lambda lane: call_counts(lane.member.estimator))  # those of like K wait least for each other
        return chosen[: self._cohort(chosen[0].member.estimator).places]

    def _advance(self, lanes: list[Lane]) -> None:
        """Trains to the next intermediate value, measures, and tells."""
        cohort, start = self._cohort(lanes[0].member.estimator), lanes[0].member.step
        goal = next(step for step in self._reports if step > start)
        try:
            self._train(cohort, lanes, goal)
            if self._stop.is_set():
                return
            for lane in lanes:
                lane.value = self._measure(cohort, lane)
        except BaseException as error:  # of the method, a plug-in (sys.exit too), or a lack of memory
            text = described(error)
            for lane in lanes:
                self._safely(lambda lane=lane: self._fail(lane.trial, text))
                self._leave(lane)
            self._note(f"{self.study.study_name}: {len(lanes)} trials failed: {text}")
            return
        for lane in lanes:
            self._safely(lambda lane=lane: self._report(lane, goal))
        spent = self._safely(self._budget_spent)
        for lane in [lane for lane in lanes if any(lane is one for one in self.lanes)]:
            self._safely(lambda lane=lane: self._judge(lane, goal, bool(spent)))

    def _train(self, cohort: Trains, lanes: list[Lane], goal: int) -> None:
        """To an iteration, or until it is to stop."""
        members, piece = [lane.member for lane in lanes], 50
        while members[0].step < goal:
            before = time.perf_counter()
            steps = min(piece, goal - members[0].step)
            cohort.advance(members, steps)
            seconds = time.perf_counter() - before
            for lane in lanes:
                lane.spent += seconds / len(lanes)
            piece = max(1, int(_PIECE_SECONDS * steps / max(seconds, 1e-6)))
            if self._stop.is_set():
                return

    def _measure(self, cohort: Trains, lane: Lane) -> float:
        """The first objective, the mean over seeds: of this iteration, the only one that is measured in the last tenth,
        or of each seed's best so far, as the task's rule has it."""
        objective, rule = self.settings.objectives[0], self.settings.config["rule"]
        found = evaluate(cohort.fitted(lane.member), self.data, [objective.removeprefix("val/")], ["val"])
        now = [better(objective, values.get(objective, math.nan)) for values in found]
        lane.best = [max(pair) for pair in zip(lane.best, now, strict=True)] if rule == "best_validation" else now
        sign = better(objective, 1.0)
        return sign * sum(lane.best) / len(lane.best)

    # --- telling ----------------------------------------------------------------------------------------------------

    def _report(self, lane: Lane, step: int) -> None:
        """An intermediate value; a trial of which a seed diverged has failed."""
        lane.trial.set_user_attr("train_seconds", lane.spent)
        diverged = [
            f"seed {seed} was not finite at iteration {at:,}"
            for seed, at in zip(self.settings.seeds, lane.member.diverged_at, strict=True)
            if at is not None
        ]
        if diverged or not math.isfinite(lane.value):
            self._fail(lane.trial, "diverged: " + ("; ".join(diverged) or "the validation value is not finite"))
            self._leave(lane)
        elif len(self.settings.objectives) == 1:
            lane.trial.report(lane.value, step)

    def _judge(self, lane: Lane, step: int, spent: bool) -> None:
        """Whether a trial goes on, is complete, or is pruned."""
        single = len(self.settings.objectives) == 1
        if step == self.settings.steps:
            seconds = lane.member.train_seconds / len(self.settings.seeds)
            values = {TIME: seconds, self.settings.objectives[0]: lane.value}
            self.study.tell(lane.trial, [values[name] for name in self.settings.objectives], skip_if_finished=True)
            self._leave(lane)
        elif single and lane.trial.should_prune() and not lane.is_paper:
            self._prune(lane, f"pruned at iteration {step:,}")
        elif spent and not lane.is_paper:
            self._prune(lane, f"the budget was spent at iteration {step:,}")

    def _prune(self, lane: Lane, reason: str) -> None:
        lane.trial.set_user_attr("reason", reason)
        self.study.tell(lane.trial, state=TrialState.PRUNED, skip_if_finished=True)
        self._leave(lane)

    def _leave(self, lane: Lane) -> None:
        self.lanes = [one for one in self.lanes if one is not lane]

    def _frozen(self, lane: Lane) -> optuna.trial.FrozenTrial:
        return self.lease.storage.get_trial(lane.trial._trial_id)

    def _safely(self, action: Any) -> Any:
        """What the storage gives, asked with patience; None where the trial has been taken from us meanwhile."""
        try:
            return patiently(action, self._stop)
        except optuna.exceptions.UpdateFinishedTrialError:
            self.lanes = [lane for lane in self.lanes if not self._frozen(lane).state.is_finished()]
            return None
