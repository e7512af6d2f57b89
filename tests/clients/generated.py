"""Starts a payment and waits until it is paid, with a client that openapi-python-client made of /openapi.json:

openapi-python-client generate --url http://localhost:8700/openapi.json --meta none --output-path tillgate_client
"""

import os
import sys

import httpx

from tillgate_client import Client
from tillgate_client.api.payments import start_payment, watch_payment
from tillgate_client.models import Payment, Started, StartProblem, StartRequest

tillgate = Client(os.environ.get("TILLGATE_URL", "http://localhost:8700"), timeout=httpx.Timeout(40))

order = StartRequest(amount=1000, redirect="https://shop.example/thanks")
started = start_payment.sync(client=tillgate, body=order, idempotency_key="order-7")
if isinstance(started, StartProblem):
    sys.exit(f"{started.error}: {started.detail}")
assert isinstance(started, Started)
print("pay:", started.pay_url, flush=True)

known = ""
for _ in range(60):
    answer = watch_payment.sync_detailed(started.watch_code, client=tillgate, wait=25, if_none_match=known)
    known = answer.headers.get("ETag", "")
    if isinstance(answer.parsed, Payment) and answer.parsed.status == "completed":
        print("paid")
        break
else:
    sys.exit("not paid yet")
