import time

from logs import record


def app(environ, start_response):
    kind, request = environ["PATH_INFO"].split("/")[1:3]
    if kind == "block":
        time.sleep(0.5)
    record(request)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
