"""A shop in one file, to try tillgate with: what the app does, and nothing else."""

import http.client
import json
import os
import signal
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TILLGATE = os.environ["TILLGATE_URL"]
orders = {}  # order: watch_code. A table, in yours.


class Unavailable(Exception):
    """tillgate is not there, or gives no answer that can be used."""


def tillgate(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    # With no-cache a watch asks the gateway at once: the payer has just come back.
    headers = {"Content-Type": "application/json", "Cache-Control": "no-cache"}
    request = urllib.request.Request(TILLGATE + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(error)


def page(method):
    """Without it the browser would get an empty reply when tillgate is not there."""

    def shown(self):
        try:
            method(self)
        except Unavailable as error:
            self.log_error("tillgate: %s", error.args[0])
            self.answer(503, "<p>Payments are not possible at the moment. Try again.</p>", **{"Retry-After": "2"})

    return shown


class Shop(BaseHTTPRequestHandler):
    @page
    def do_GET(self):
        order = self.path.removeprefix("/thanks/")
        if self.path == "/":
            self.answer(200, "<form method=post action=/buy><button>Buy for 1000</button></form>")
        elif order in orders:
            self.answer(200, f"<p>Your order is {tillgate('/watch/' + orders[order])['status']}</p>")
        else:
            self.answer(404, "<p>No such order</p>")

    @page
    def do_POST(self):
        order = uuid.uuid4().hex
        back = f"http://localhost:8080/thanks/{order}"
        payment = tillgate("/api/start_payment", {"amount": 1000, "reference": order, "redirect": back})
        orders[order] = payment["watch_code"]
        self.answer(303, "", Location=payment["pay_url"])

    def answer(self, status, page, **headers):
        self.send_response(status)
        for name, value in {"Content-Type": "text/html", "Content-Length": str(len(page)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page.encode())


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # process 1 does not end by itself
ThreadingHTTPServer(("", 8080), Shop).serve_forever()
