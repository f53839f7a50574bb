"""What people make of gunicorn's extension points: a logger class, and subclasses of the worker class."""

import os
import signal

import checkpoints
from gunicorn.glogging import Logger
from gunicorn.util import load_class

Base = load_class(os.environ["WORKER_CLASS"])


class NotingLogger(Logger):
    def setup(self, cfg):
        super().setup(cfg)
        # A name that gunicorn uses too, but for captured output only
        self.logfile = open(os.path.join(checkpoints.CONTROL, "audit"), "a", buffering=1)  # noqa: SIM115

    def reopen_files(self):
        self._reopen()
        super().reopen_files()

    def _reopen(self):
        checkpoints.note("reopened")
        self.logfile.write("reopened by %d\n" % os.getpid())


class Extending(Base):
    def handle_usr1(self, sig, frame):
        checkpoints.note("handled")
        super().handle_usr1(sig, frame)


class AsReported(Base):
    """The fix in the bug report that started all this."""

    def init_signals(self):
        super().init_signals()
        signal.signal(signal.SIGUSR1, self.handle_usr1)


class Unreset(Base):
    """Where to reset the signal was fatal, this was enough to stay alive."""

    SIGNALS = tuple(s for s in Base.SIGNALS if s != signal.SIGUSR1)

    def init_signals(self):
        self.SIGNALS = self.SIGNALS + (signal.SIGPROF,)
        super().init_signals()


class Removed(Base):
    """The signal is taken out of those that are reset, as a hook might do it."""

    def init_process(self):
        self.SIGNALS.remove(signal.SIGUSR1)
        super().init_process()


class Resetting(Base):
    """What uvicorn 0.13.3 to 0.18.3 have, and no more."""

    def init_signals(self):
        for s in self.SIGNALS:
            signal.signal(s, signal.SIG_DFL)


class ServingItself(Base):
    """Serves with uvicorn's own server, as people do to set one up differently."""

    async def _serve(self):
        from uvicorn.server import Server

        self.config.app = self.wsgi
        await Server(config=self.config).serve(sockets=self.sockets)
