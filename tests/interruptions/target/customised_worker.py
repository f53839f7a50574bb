"""What people make of the worker class, and one that counts."""

import os
import signal

import interrupted
from worker import UvicornH11Worker


class AsReported(UvicornH11Worker):
    """The fix in the bug report that started all this."""

    def init_signals(self):
        super().init_signals()
        signal.signal(signal.SIGUSR1, self.handle_usr1)


class Counting(UvicornH11Worker):
    handled = 0

    def handle_usr1(self, sig, frame):
        type(self).handled += 1
        super().handle_usr1(sig, frame)

    def init_process(self):
        try:
            super().init_process()
        finally:
            interrupted.report(counted=os.getpid(), handled=self.handled, fired=interrupted.interrupter.fired)
