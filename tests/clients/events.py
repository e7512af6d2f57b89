"""Prints each change of every payment, with the token in TILLGATE_TOKEN. Needs the package requests."""

import os

from stream import events, tillgate

token = {"Authorization": f"Bearer {os.environ['TILLGATE_TOKEN']}"}
for _, payment in events(f"{tillgate}/events", token):
    print(payment["code"], payment["status"], flush=True)
