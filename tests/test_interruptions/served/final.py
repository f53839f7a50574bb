"""
The last signal of all, when the interpreter takes its modules apart: long after atexit.

A module of its own, which nothing else refers to: the interpreter keeps what a trace function uses.
"""

import os
import signal


class Final:
    # Its defaults are what it needs: by then the modules have been emptied.
    def __del__(self, kill=os.kill, pid=os.getpid, number=signal.SIGUSR1):
        kill(pid(), number)


final = Final()
