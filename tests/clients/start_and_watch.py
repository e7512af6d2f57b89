"""Starts a payment of 1000 through tillgate and waits until it is paid. Needs the package requests."""

import os
import sys
import time

import requests

tillgate = os.environ.get("TILLGATE_URL", "http://localhost:8700")

order = {"amount": 1000, "redirect": "https://shop.example/thanks"}
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
