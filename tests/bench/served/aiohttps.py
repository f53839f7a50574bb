import time

from aiohttp import web
from logs import record


async def answer(request):
    if request.match_info["kind"] == "block":
        time.sleep(0.5)
    record(request.match_info["request"])
    return web.Response(text="ok")


app = web.Application()
app.add_routes([web.get("/{kind}/{request}", answer)])
