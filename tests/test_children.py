"""A child never outlives the work that it was started for, at whatever moment a signal ends that work."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgeml.children import started

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def thread():
    """A thread that sleeps: the system may give it the signals that the main thread holds back."""
    over = threading.Event()
    sleeper = threading.Thread(target=over.wait)
    sleeper.start()
    yield
    over.set()
    sleeper.join()


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C in the very moment that a child was made and nobody knows it yet; the children that were made."""
    made = []

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self.pid)
            os.kill(os.getpid(), signal.SIGINT)
            # The other thread needs a moment, and Python looks for signals between its own steps.
            for _ in range(300_000):
                os.getpid()

    monkeypatch.setattr(subprocess, "Popen", Popen)
    return made


@pytest.mark.usefixtures("thread")
def test_a_child_that_an_interrupt_meets_while_it_is_made_is_ended(interrupted):
    with pytest.raises(KeyboardInterrupt), started(SLEEPS):
        pytest.fail("the work began all the same")

    (child,) = interrupted
    assert not Path(f"/proc/{child}").exists()


def test_handlers_are_as_they_were_before(interrupted):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    with pytest.raises(KeyboardInterrupt), started(SLEEPS):
        pass

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_command_that_cannot_be_started_leaves_signals_as_they_were():
    before = signal.getsignal(signal.SIGINT)

    with pytest.raises(FileNotFoundError), started(["no-such-program"]):
        pass

    assert signal.getsignal(signal.SIGINT) is before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_the_child_itself_hears_no_interrupt_since_its_parent_ends_it():
    held = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with started([sys.executable, "-c", held], stdout=subprocess.PIPE) as child:
        assert child.communicate()[0].strip() == "True"
