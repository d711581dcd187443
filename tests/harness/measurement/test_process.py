"""Measured processes: their answers, their failures, and that none is left behind."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from harness import HarnessError
from harness.data.examples import Example
from harness.errors import OutOfMemoryError
from harness.measurement.process import MeasuredProcess
from harness.measurement.request_server import (
    PRELOADED,
    ProcessEndedError,
    RequestServer,
    Service,
)
from harness.spec.run_spec import RunSpec
from harness.training.schedule import Step

pytestmark = pytest.mark.usefixtures("known_costs")
MakeSpec = Callable[..., RunSpec]


def step_of(token: int) -> Step:
    return Step(((Example([token, 9, 1], [7, 1]),),))


STEPS = [step_of(token) for token in (8, 3, 4, 5, 9)]
GOOD, TOO_LARGE, RAISED, OTHER = 0, 1, 2, 3


@pytest.mark.usefixtures("any_processes")
def test_a_process_answers_fails_on_request_and_is_killed(make_spec: MakeSpec) -> None:
    with MeasuredProcess(make_spec("failing"), STEPS, STEPS[GOOD]) as process:
        assert process.engine == "padded"
        assert process.layers_kept.encoder == [1]
        assert process.parameters.trainable == process.parameters.original
        assert process.window(GOOD, 1) > 0

        with pytest.raises(OutOfMemoryError, match="can't allocate memory"):
            process.window(TOO_LARGE, 1)
        with pytest.raises(OutOfMemoryError):
            process.window(RAISED, 1)
        with pytest.raises(RuntimeError, match="ValueError: nothing to do with memory"):
            process.window(OTHER, 1)

        # The process still runs and measures.
        reading = process.memory(3)
        assert reading.peak_bytes >= reading.static_bytes > 0
        assert reading.tensor_bytes
        assert 0 < reading.tensor_bytes < reading.peak_bytes

        (child,) = multiprocessing.active_children()
        # The process is stopped first, so that it is killed before it reads the request.
        os.kill(child.pid or 0, signal.SIGSTOP)
        killer = threading.Timer(0.3, os.kill, [child.pid, signal.SIGKILL])
        killer.start()
        with pytest.raises(OutOfMemoryError, match="failing was killed"):
            process.window(GOOD, 1)
        with pytest.raises(OutOfMemoryError, match="failing was killed"):
            process.window(GOOD, 1)
    assert multiprocessing.active_children() == []


def test_a_users_mistake_is_raised_here_and_no_process_is_left(make_spec: MakeSpec) -> None:
    with pytest.raises(HarnessError) as raised:
        MeasuredProcess(make_spec("refusing"), STEPS, STEPS[GOOD])
    assert raised.value.message == "refusing: It has no such layers."
    assert raised.value.hint == "Choose others."
    assert multiprocessing.active_children() == []


def test_twice_the_steps_take_twice_the_time(make_spec: MakeSpec) -> None:
    with MeasuredProcess(make_spec("costly:seconds=0.3"), STEPS, STEPS[GOOD]) as process:
        two, four = (process.window(0, count) for count in (2, 4))
    assert (two, four) == pytest.approx((0.6, 1.2))


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Let SIGINT raise, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_closing_kills_a_process_that_is_busy(make_spec: MakeSpec) -> None:
    def interrupted() -> None:
        here = threading.get_ident()
        with MeasuredProcess(make_spec("stuck"), STEPS, STEPS[GOOD]) as process:
            threading.Timer(0.2, signal.pthread_kill, [here, signal.SIGINT]).start()
            process.window(0, 5)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert multiprocessing.active_children() == []


@pytest.fixture
def _terminal() -> Iterator[None]:
    """Send SIGINT to all children, again and again."""
    ready = threading.Event()

    def interrupt_children() -> None:
        while not ready.wait(0.05):
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.send_signal(signal.SIGINT)

    terminal = threading.Thread(target=interrupt_children)
    terminal.start()
    yield
    ready.set()
    terminal.join()


@pytest.mark.usefixtures("fresh_processes", "_terminal")
def test_ctrl_c_in_the_terminal_does_not_reach_the_process_of_a_server() -> None:
    server = RequestServer(Service)
    assert server.request("memory_reached", MemoryError()) is None
    server.close()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_processes", "_terminal")
def test_ctrl_c_in_the_terminal_does_not_reach_a_measured_process(make_spec: MakeSpec) -> None:
    with MeasuredProcess(make_spec("failing"), STEPS, STEPS[GOOD]) as process:
        assert process.window(GOOD, 1) > 0


PLACE = """
    import os, signal, sys
    from harness.measurement.request_server import PRELOADED, RequestServer, Service

    class Place(Service):
        def place(self):
            blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
            return os.getppid(), set(PRELOADED) <= set(sys.modules), blocked

    if __name__ == "__main__":
        first, second = (RequestServer(Place, forked=True) for _ in range(2))
        (server, preloaded, blocked), (other, *_) = (s.request("place") for s in (first, second))
        assert server == other != os.getpid()
        assert preloaded and blocked
        first.close()
        second.close()
    """


def test_processes_are_forked_from_one_server_with_the_modules(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(PLACE))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_forked_process_that_is_killed_says_so() -> None:
    # A service of the package: the server may have started where tests cannot be imported.
    server = RequestServer(Service, forked=True)
    assert server.request("memory_reached", MemoryError()) is None
    server.kill()
    with pytest.raises(ProcessEndedError) as ended:
        server.request("memory_reached", MemoryError())
    assert ended.value.code == -signal.SIGKILL
    server.close()
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_modules_of_forked_processes_exist_and_use_no_device() -> None:
    """A process cannot use CUDA if the server that it was forked from did."""
    code = """
        import importlib, sys, torch
        used = []
        torch.cuda.is_available = torch.cuda._lazy_init = lambda: used.append("CUDA")
        for module in sys.argv[1:]:
            importlib.import_module(module)
        assert not used
        """
    command = [sys.executable, "-c", textwrap.dedent(code), *PRELOADED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
