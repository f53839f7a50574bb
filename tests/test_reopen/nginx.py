"""A real nginx, as an ordinary process with its files in a directory of its own."""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple, Optional

from properties import wait
from properties.logs import Logs, settling

CONFIGURATION = """
daemon off;
{user}
worker_processes 2;
pid {directory}/pidfile;
error_log {directory}/logs/error.log;
events {{}}
http {{
    access_log {directory}/logs/access.log;
    client_body_temp_path {directory}/temporary;
    proxy_temp_path {directory}/temporary;
    fastcgi_temp_path {directory}/temporary;
    uwsgi_temp_path {directory}/temporary;
    scgi_temp_path {directory}/temporary;
    keepalive_requests 1000000000;
    server {{
        listen unix:{directory}/socket;
        location / {{ return 200 "ok\\n"; }}
    }}
}}
"""


class Nginx(NamedTuple):
    directory: Path
    logs: Logs
    process: "subprocess.Popen[bytes]"

    @property
    def socket(self) -> Path:
        return self.directory / "socket"


@contextlib.contextmanager
def run_nginx(user: Optional[int] = None) -> Iterator[Nginx]:
    """user is who runs it, if another one."""
    with tempfile.TemporaryDirectory(prefix="usr1-nginx-") as name:
        directory = Path(name)
        logs = Logs(directory / "logs", settling)
        configuration, pidfile = directory / "nginx.conf", directory / "pidfile"
        directive = "user root;" if os.geteuid() == 0 and user is None else ""
        configuration.write_text(CONFIGURATION.format(directory=directory, user=directive))
        if user is not None:
            for path in (directory, logs.directory):
                os.chown(path, user, user)
        command = ["nginx", "-c", str(configuration), "-e", str(logs.path("error.log"))]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, user=user)
        try:
            # It listens before it writes this.
            wait.until(lambda: pidfile.exists() and pidfile.read_text(), lambda: f"nginx ended: {process.poll()}")
            yield Nginx(directory, logs, process)
        finally:
            process.terminate()
            process.wait(wait.PATIENCE)
