"""Serving the studies of a folder to a browser, by optuna-dashboard."""

__all__ = ["Dashboard"]

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from socket import AF_INET, AF_INET6
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from mla_tune.errors import InputError
from mla_tune.tuning.study.folder import StudyFolder
from mla_tune.tuning.study.merged import MergedStorage

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

READING = {"GET", "HEAD", "OPTIONS"}


class Dashboard:
    """A server of the studies in a folder. It listens when it is made, and answers in `serve`.

    Args:
        folder: the study folder.
        host: the address to listen at.
        port: the port; 0 is any that is free.

    Attributes:
        studies: the folder.
        url: where it is to be found.

    Raises:
        InputError: optuna-dashboard is not installed, there is no such folder, or the address is
            taken.
    """

    def __init__(self, folder: Path, host: str, port: int) -> None:
        try:
            from optuna_dashboard import wsgi
        except ModuleNotFoundError:
            raise InputError(
                "the dashboard needs optuna-dashboard, which is not installed",
                remedy="pip install 'mla-tune[dashboard]'",
            ) from None
        self.studies = StudyFolder(folder)
        application = _read_only(wsgi(MergedStorage(self.studies.storages)))
        server = _SixServer if ":" in host else _Server
        try:
            self._server = make_server(host, port, application, server, _Quiet)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"the dashboard cannot listen at {host}, port {port}: {error}",
                remedy="choose another with --port or --host; --port 0 takes any that is free",
            ) from None
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}/"

    def serve(self) -> None:
        """Answer until interrupted."""
        try:
            self._server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request: importances take a while."""

    address_family = AF_INET
    daemon_threads = True


class _SixServer(_Server):
    address_family = AF_INET6


class _Quiet(WSGIRequestHandler):
    """Prints no line a request."""

    def log_message(self, *_args: Any) -> None:
        """As `BaseHTTPRequestHandler.log_message`."""


def _read_only(application: Application) -> Application:
    """Refuse what would change a study: a run that is going on may hold it."""

    def answer(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READING:
            return application(environ, start_response)
        status = HTTPStatus.METHOD_NOT_ALLOWED
        headers = [("Content-Type", "application/json"), ("Allow", ", ".join(sorted(READING)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [json.dumps({"reason": "the studies are only read here"}).encode()]

    return answer
