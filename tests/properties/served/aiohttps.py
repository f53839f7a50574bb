"""The same application for aiohttp's worker class, as far as tests need it there."""

import checkpoints
from aiohttp import web
from application import begin, block


async def answer(request):
    kind, name = request.match_info["kind"], request.match_info["request"]
    begin(kind, name)
    text = str(block(kind, name))
    await checkpoints.pause_async(name)
    return web.Response(text=text)


app = web.Application()
app.add_routes([web.get("/{kind}/{request}", answer)])
