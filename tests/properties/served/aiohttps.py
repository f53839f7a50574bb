"""The same application for aiohttp's worker class, as far as tests need it there."""

import os

import checkpoints
from aiohttp import web
from application import begin


async def answer(request):
    kind, name = request.match_info["kind"], request.match_info["request"]
    begin(kind, name)
    if kind == "block":
        checkpoints.pause(name)
    await checkpoints.pause_async(name)
    return web.Response(text=str(os.getpid()))


app = web.Application()
app.add_routes([web.get("/{kind}/{request}", answer)])
