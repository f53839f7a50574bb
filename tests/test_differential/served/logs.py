"""
What one Gunicorn makes of logging configurations: reads them from stdin, a line of JSON each, and prints what it does.

Python 3.6 syntax and nothing but the standard library and Gunicorn: it runs in the target environment.
"""

import gc
import json
import logging
import logging.handlers
import os
import re
import shutil
import sys
import tempfile

from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.instrument.statsd import Statsd

LOGGERS = ("", "gunicorn.error", "gunicorn.access", "application")


class Overriding(Logger):
    def reopen_files(self):
        self.error("reopening")
        super().reopen_files()
        self.error("reopened")


CLASSES = {"Logger": Logger, "Statsd": Statsd, "Overriding": Overriding}


def configure(drawn):
    cfg = Config()
    for name, value in drawn["settings"].items():
        cfg.set(name, value)
    if drawn["how"] == "logconfig_dict":
        cfg.set("logconfig_dict", drawn["config"])
    elif drawn["how"] == "logconfig_json":
        with open("logconfig.json", "w") as file:
            json.dump(drawn["config"], file)
        cfg.set("logconfig_json", "logconfig.json")
    elif drawn["how"] == "logconfig":
        with open("logconfig.ini", "w") as file:
            file.write(drawn["ini"])
        cfg.set("logconfig", "logconfig.ini")
    return cfg


def handlers():
    """The handlers of each logger, and whether each has a file open."""
    return {
        name: [
            [type(h).__name__, h.level, str(getattr(h.formatter, "_fmt", None)), bool(getattr(h, "stream", None))]
            for h in logging.getLogger(name or None).handlers
        ]
        for name in LOGGERS
    }


def rotate(number):
    for name in sorted(os.listdir(".")):
        if name.endswith(".log"):
            os.rename(name, "%s.%d" % (name, number))


def step(what, number, log):
    if what == "rotate":
        rotate(number)
    elif what == "reopen":
        log.reopen_files()
    else:
        for name in LOGGERS:
            logging.getLogger(name or None).warning("line %d of %s", number, name)
        log.info("%s", "by Gunicorn")
        print("printed", number, flush=True)


def texts():
    """What each file has, without what differs from time to time."""
    found = {}
    for name in sorted(os.listdir(".")):
        with open(name, errors="replace") as file:
            found[name] = re.sub(r"\[[-+:\d ]+\]", "[]", file.read())
    return found


def outcome(drawn):
    said = []
    try:
        log = CLASSES[drawn["class"]](configure(drawn))
    except Exception as error:  # A configuration that Gunicorn does not take
        return {"said": [repr(error)], "texts": texts(), "descriptors": 0}
    for number, what in enumerate(drawn["steps"]):
        try:
            step(what, number, log)
            said.append(handlers())
        except Exception as error:
            said.append(repr(error))
    gc.collect()  # Loggers of earlier configurations are in cycles, and have files open
    descriptors = len(os.listdir("/proc/self/fd"))
    return {"said": said, "texts": texts(), "descriptors": descriptors}


def forget():
    for handler in [ref() for ref in logging._handlerList]:
        if handler:
            handler.close()
    del logging._handlerList[:]
    logging.root.handlers[:] = []
    logging.root.manager.loggerDict.clear()


def main():
    answers = os.fdopen(os.dup(1), "w", 1)
    for line in iter(sys.stdin.readline, ""):
        directory = tempfile.mkdtemp()
        os.chdir(directory)
        with open("stdout", "w") as sys.stdout, open("stderr", "w") as sys.stderr:
            found = outcome(json.loads(line))
            forget()
        answers.write(json.dumps(found) + "\n")
        os.chdir("/")
        shutil.rmtree(directory)


main()
