"""A real nginx, as an ordinary process with its files in a directory of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Optional

from properties import wait
from properties.clients import Client
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


class Nginx:
    def __init__(self, user: Optional[int] = None) -> None:
        """user is who runs it, if another one."""
        self.user = user
        self.directory = Path(tempfile.mkdtemp(prefix="usr1-nginx-"))
        self.logs = Logs(self.directory / "logs", settling)
        self.socket = self.directory / "socket"
        self.configuration = self.directory / "nginx.conf"
        directive = "user root;" if os.geteuid() == 0 and user is None else ""
        self.configuration.write_text(CONFIGURATION.format(directory=self.directory, user=directive))
        if user is not None:
            for path in (self.directory, self.logs.directory):
                os.chown(path, user, user)

    def __enter__(self) -> "Nginx":
        self.process = subprocess.Popen(
            ["nginx", "-c", str(self.configuration), "-e", str(self.logs.path("error.log"))],
            stdin=subprocess.DEVNULL,
            user=self.user,
        )
        try:
            wait.until(self.listening, lambda: f"nginx does not serve; its exit status: {self.process.poll()}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def listening(self) -> bool:
        with contextlib.suppress(OSError), Client(self.socket, timeout=0.2):
            return True
        return False

    def __exit__(self, *exc_info: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(wait.PATIENCE)
        shutil.rmtree(self.directory)
