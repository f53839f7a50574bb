"""An application such as the bug report's: FastAPI, with log files of its own beside gunicorn's."""

import logging

from fastapi import FastAPI

app = FastAPI()

for name in ("main", "tasks"):
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.FileHandler("log/%s.log" % name))


@app.get("/items/{item}")
async def read_item(item: str):
    for name in ("main", "tasks"):
        logging.getLogger(name).info("read %s", item)
    return {"item": item}
