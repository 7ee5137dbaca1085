"""A process that works on studies.

Any number of them work on a study at a time, on any number of machines; the storage is all that they share.
"""

import contextlib
import functools
import signal
import threading
import time
import traceback
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from benchmark.data.datasets import DataSet
from benchmark.system import output
from benchmark.system.credentials import unsecret
from benchmark.tuning import leases
from benchmark.tuning.storage import StorageAway, open_storage, patiently
from benchmark.tuning.study import open_study, read
from benchmark.tuning.tuner import Assignment, Tuner
from bism.errors import InputError, described, message
from bism.precision import computing

_LOOK_SECONDS = 1.0  # for trials of others that come back


def work_on(
    work: Assignment,
    data: dict[str, DataSet],
    device: str,
    first: int,
    connection: Connection,
    printed: Path | None = None,
) -> None:
    """The process: works on each study in turn, beginning with the ``first``; says ("note", text) and, at the end,
    ("done", ""), ("stopped", "") or ("failed", why).

    data: by task.
    printed: a file for what it prints.
    """
    if printed is not None:
        output.redirect(printed)
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_end_with_the_parent, args=(stop,), daemon=True).start()
    if work.deadline is not None:
        timer = threading.Timer(max(0.0, work.deadline - time.time()), stop.set)
        timer.daemon = True
        timer.start()
    if device == "cpu":
        torch.set_num_threads(work.threads)

    def say(kind: str, text: str) -> None:
        with contextlib.suppress(OSError):
            connection.send((kind, text))

    try:
        storage = patiently(lambda: open_storage(work.storage), stop, also=InputError)  # it was there a moment ago
        with leases.Lease(storage, work.lease) as lease, computing(torch.device(device)):
            tuners = list[Tuner]()
            for index in range(len(work.names)):
                which = (first + index) % len(work.names)
                study = patiently(functools.partial(open_study, storage, work.names[which]), stop)
                task, limits = read(study).task, work.limits[which]
                tuners.append(
                    Tuner(study, data[task], lease, work, limits, device, stop, lambda text: say("note", text))
                )
            while not stop.is_set():
                for tuner in tuners:
                    if tuner.has_work():
                        tuner.run()
                if patiently(lambda: all(tuner.is_settled() for tuner in tuners), stop):
                    break
                stop.wait(_LOOK_SECONDS)
        say("stopped" if stop.is_set() else "done", "")
    except StorageAway as away:
        say("failed", f"studies at {unsecret(work.storage)} do not answer: {away}")
    except InputError as error:
        say("failed", message(error))
    except BaseException as error:  # whatever a method or a plug-in raises
        traceback.print_exc()
        say("failed", described(error))


def _end_with_the_parent(stop: threading.Event) -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        stop.set()
