"""A module of its own, as the interpreter clears every module, but not what a suspended coroutine still refers to."""

import os
import time

import checkpoints


class Finalization:
    """Holds the process when the interpreter clears its modules, long after atexit."""

    # Its defaults are what it needs: by then the modules have been emptied.
    def __del__(self, stat=os.stat, open=os.open, getpid=os.getpid, sleep=time.sleep, control=checkpoints.CONTROL):
        place = control + "/hold.finalization"
        try:
            stat(place)
            open(control + "/finalization.%d" % getpid(), 0o100)  # O_CREAT
            while True:
                stat(place)
                sleep(0.002)
        except OSError:
            return


finalization = Finalization()
