"""Starts a payment and waits until it is paid, with a client that openapi-generator made of /openapi.json:

openapi-generator-cli generate -g python -i http://localhost:8700/openapi.json --package-name tillgate_client -o .
"""

import os
import sys

from tillgate_client import ApiClient, ApiException, Configuration, PaymentsApi, Problem, StartProblem, StartRequest

payments = PaymentsApi(ApiClient(Configuration(os.environ.get("TILLGATE_URL", "http://localhost:8700"))))

order = StartRequest(amount=1000, redirect="https://shop.example/thanks")
try:
    started = payments.start_payment(order, idempotency_key="order-7")
    print("pay:", started.pay_url, flush=True)
    # Without If-None-Match: this client takes a 304 for a failure.
    for _ in range(60):
        if payments.watch_payment(started.watch_code, wait=25).status == "completed":
            print("paid")
            break
    else:
        sys.exit("not paid yet")
except ApiException as failed:
    if isinstance(failed.data, (StartProblem, Problem)):
        sys.exit(f"{failed.data.error}: {failed.data.detail}")
    raise
