"""What people make of the worker class, and one that counts."""

import os
import signal

import interrupted
from worker import UvicornH11Worker, UvicornWorker


class AsReported(UvicornH11Worker):
    """The fix in the bug report that started all this."""

    def init_signals(self):
        super().init_signals()
        signal.signal(signal.SIGUSR1, self.handle_usr1)


class Counting:
    handled = 0
    depth = 0
    deepest = 0
    threads = 0

    def handle_usr1(self, sig, frame):
        Counting.handled += 1
        Counting.depth += 1
        Counting.deepest = max(Counting.depth, Counting.deepest)
        super().handle_usr1(sig, frame)
        Counting.depth -= 1

    def _reopen_logs(self, *arguments):
        Counting.threads += 1
        super()._reopen_logs(*arguments)

    def init_process(self):
        try:
            super().init_process()
        finally:
            counts = {"handled": self.handled, "deepest": self.deepest, "threads": self.threads}
            interrupted.report(counted=os.getpid(), fired=interrupted.interrupter.fired, **counts)


class CountingOnAsyncio(Counting, UvicornH11Worker):
    pass


class CountingOnUvloop(Counting, UvicornWorker):
    pass
