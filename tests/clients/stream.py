"""Prints each state of a payment as it comes: of a new one of 1000, or of the watch code that is given.

Needs the package requests.
"""

import json
import os
import sys
import time

import requests

tillgate = os.environ.get("TILLGATE_URL", "http://localhost:8700")


def events(url, headers=None):
    """Server-sent events, as pairs of kind and data. Comes back after each end and failure until it is told 204."""
    last_id, retry = "", 1.0
    while True:
        head = {"Accept": "text/event-stream", "Last-Event-ID": last_id, **(headers or {})}
        try:
            # tillgate says something every 4 s: who is silent for longer is gone.
            with requests.get(url, headers=head, stream=True, timeout=(5, 15)) as answer:
                if answer.status_code == 204:
                    return
                if 400 <= answer.status_code < 500:
                    sys.exit(answer.json()["detail"])
                answer.raise_for_status()
                block = {}
                # Bytes: as text, requests would take them for Latin-1.
                for line in answer.iter_lines():
                    name, _, value = line.decode().partition(":")
                    if line:
                        block[name] = value.removeprefix(" ")
                        continue
                    # Only a whole block counts: what breaks off comes again.
                    last_id = block.get("id", last_id)
                    retry = int(block.get("retry", retry * 1000)) / 1000
                    if "data" in block:
                        yield block.get("event", "message"), json.loads(block["data"])
                    block = {}
        except requests.RequestException as error:
            print("coming back:", error, file=sys.stderr)
        time.sleep(retry)


if __name__ == "__main__":
    watch_code = sys.argv[1] if len(sys.argv) > 1 else None
    if not watch_code:
        start = requests.post(f"{tillgate}/api/start_payment", json={"amount": 1000}, timeout=15)
        payment = start.json()
        if not start.ok:
            sys.exit(payment["detail"])
        print("pay:", payment["pay_url"], flush=True)
        watch_code = payment["watch_code"]
    for kind, data in events(f"{tillgate}/watch/{watch_code}"):
        if kind == "problem":
            sys.exit(data["detail"])
        # After a reconnect the same state may come once more.
        print(data["status"], flush=True)
