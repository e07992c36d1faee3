"""A port of this machine that leads into a namespace: for what cannot run inside, as a browser."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress

from nat_table.endpoint import Endpoint
from tests.lab.closable import Closable
from tests.lab.namespace import Namespace

MAX_READ = 65536
TICK = 0.1


class Forward(Closable):
    """Hands each connection to `port` of the loopback on to an endpoint inside a namespace."""

    def __init__(self, namespace: Namespace, target: Endpoint) -> None:
        self._namespace = namespace
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TICK)
        self.port: int = self._listener.getsockname()[1]
        self._is_closing = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Ends every connection."""
        self._is_closing = True
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_closing:
            with suppress(TimeoutError):
                near, _ = self._listener.accept()
                thread = threading.Thread(target=self._join, args=(near,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _join(self, near: socket.socket) -> None:
        with near, self._namespace.tcp_socket(self._target.address) as far, suppress(OSError):
            far.connect(self._target)
            with selectors.DefaultSelector() as selector:
                selector.register(near, selectors.EVENT_READ, far)
                selector.register(far, selectors.EVENT_READ, near)
                while not self._is_closing:
                    for key, _ in selector.select(TICK):
                        assert isinstance(key.fileobj, socket.socket)
                        chunk = key.fileobj.recv(MAX_READ)
                        if not chunk:
                            return
                        key.data.sendall(chunk)
