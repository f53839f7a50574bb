"""
Places in the life of a served process where a test can hold it.

Python 3.6 syntax and nothing but the standard library: all of served/ runs in the target environment.
"""

import asyncio
import os
import time

CONTROL = os.environ["CONTROL"]


def note(event, *details):
    """Append an event to the story of this server."""
    with open(os.path.join(CONTROL, "events"), "a") as events:
        events.write(" ".join(map(str, (event,) + details)) + "\n")


def mark(name):
    open(os.path.join(CONTROL, "%s.%d" % (name, os.getpid())), "w").close()


def held(name, exists=os.path.exists, join=os.path.join):
    return exists(join(CONTROL, "hold." + name))


def pause(name):
    """Wait here for as long as the test holds this place."""
    if held(name):
        mark(name)
        while held(name):
            time.sleep(0.002)


async def pause_async(name):
    if held(name):
        mark(name)
        while held(name):
            await asyncio.sleep(0.002)
