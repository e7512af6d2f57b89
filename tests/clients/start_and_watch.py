"""Starts the payment of order 7, or of the order that is given, and waits until it is paid. Needs requests."""

import os
import sys
import time

import requests

tillgate = os.environ.get("TILLGATE_URL", "http://localhost:8700")

number = sys.argv[1] if len(sys.argv) > 1 else "7"
order = {"amount": 1000, "reference": number, "redirect": "https://shop.example/thanks"}
start = requests.post(f"{tillgate}/api/start_payment", json=order, timeout=15)
payment = start.json()
if not start.ok:
    sys.exit(payment["detail"])
print("pay:", payment["pay_url"], flush=True)

for _ in range(60):
    watch = requests.get(f"{tillgate}/watch/{payment['watch_code']}", timeout=15)
    if watch.ok and watch.json()["status"] == "completed":
        print("paid")
        break
    time.sleep(1)
else:
    sys.exit("not paid yet")
