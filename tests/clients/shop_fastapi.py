"""A shop with FastAPI and httpx that is told by webhook when an order is paid. Needs the packages of requirements.txt.

    python3 shop_fastapi.py    serves it; set WEBHOOK_SECRET to a key of tillgate's webhook.secret_file
"""

import asyncio
import contextlib
import html
import os
import sqlite3
import sys
from typing import Annotated

import fastapi
import httpx
import uvicorn
from fastapi.responses import HTMLResponse, RedirectResponse
from standardwebhooks import Webhook, WebhookVerificationError

token = os.environ.get("TILLGATE_TOKEN")  # only where listen.token_file is set
tillgate = httpx.AsyncClient(
    base_url=os.environ.get("TILLGATE_URL", "http://localhost:8700"),
    headers={"Authorization": f"Bearer {token}"} if token else {},
    timeout=15,  # without this, httpx gives up after 5 s
    trust_env=False,  # no proxy, whatever the environment says
)
shop = os.environ.get("SHOP_URL", "http://localhost:3000")  # its origin must be in redirect.allowed


def sql(statement, *values):
    """Runs one statement: the rows it finds, and how many it changed."""
    orders = sqlite3.connect(os.environ.get("ORDERS", "orders.sqlite"), isolation_level=None, timeout=15)
    orders.row_factory = sqlite3.Row
    try:
        cursor = orders.execute(statement, values)
        return cursor.fetchall(), cursor.rowcount
    finally:
        orders.close()


def find(number):
    return next(iter(sql("SELECT * FROM orders WHERE id = ?", number)[0]), None)


async def start(order):
    """Starts the order's payment. However often this is done, the order has one payment: the reference says so."""
    number = str(order["id"])
    body = {"amount": order["amount"], "reference": number, "redirect": f"{shop}/orders/{number}"}
    for wait in (0.5, 1, 2, 4, None):
        asked = 0
        try:
            answer = await tillgate.post("/api/start_payment", json=body)
            payment = answer.json()
            is_paid = payment.get("error") == "reference_paid"  # of an earlier start, whose answer was lost
            if answer.is_success or is_paid:
                sql("UPDATE orders SET watch_code = ?, pay_url = ? WHERE id = ? AND watch_code IS NULL",
                    payment["watch_code"], payment.get("pay_url"), number)
                return await look(find(number), "start") if is_paid else None
            if answer.status_code < 500 and answer.status_code != 429:
                raise RuntimeError(payment["detail"])  # reference_mismatch too: it is open for another amount
            asked = int(answer.headers.get("Retry-After", 0))
        except (httpx.HTTPError, ValueError) as error:
            print("tillgate:", repr(error), file=sys.stderr, flush=True)
        if wait is None:
            raise fastapi.HTTPException(503, "Payments are not possible at the moment.", {"Retry-After": "5"})
        await asyncio.sleep(max(wait, min(asked, 10)))


async def look(order, source):
    """Asks for the payment of an order. With no-cache, tillgate asks the gateway at once."""
    try:
        answer = await tillgate.get(f"/watch/{order['watch_code']}", headers={"Cache-Control": "no-cache"})
        if answer.is_success:
            settle({**answer.json(), "watch_code": order["watch_code"]}, source)
    except httpx.HTTPError as error:
        print("tillgate:", repr(error), file=sys.stderr, flush=True)


def settle(payment, source):
    """Marks the payment's order as paid: once, whoever says so and however often."""
    if payment["status"] != "completed":
        return
    order = (payment["watch_code"], payment["amount"])  # the column is a number: 1000.00 and "1000" are 1000
    if sql("UPDATE orders SET state = 'paid', paid_by = ? WHERE watch_code = ? AND amount = ? AND state = 'open'",
           source, *order)[1]:
        # Only here, once for each order. Send the goods from the table, which also survives a crash.
        print("paid:", payment["watch_code"], "by", source, flush=True)
    elif not sql("SELECT id FROM orders WHERE watch_code = ? AND amount = ?", *order)[0]:
        print("not the amount of an order:", payment, file=sys.stderr, flush=True)


async def check(every):
    """A webhook may never come: this is what counts. Orders that nobody will pay any more should not stay open."""
    while True:
        await asyncio.sleep(every)
        for order in sql("SELECT * FROM orders WHERE state = 'open' AND watch_code IS NOT NULL")[0]:
            await look(order, "check")


@contextlib.asynccontextmanager
async def lifespan(_):
    checking = asyncio.create_task(check(float(os.environ.get("CHECK_EVERY", "300"))))
    yield
    checking.cancel()


app = fastapi.FastAPI(lifespan=lifespan)


@app.post("/orders")
def create(amount: Annotated[int, fastapi.Form()]):
    rows, _ = sql("INSERT INTO orders (amount) VALUES (?) RETURNING id", amount)
    return RedirectResponse(f"/orders/{rows[0]['id']}", 303)


@app.get("/orders/{number}", response_class=HTMLResponse)
async def show(number: int):
    order = find(number)
    if order is None:
        raise fastapi.HTTPException(404)
    if order["watch_code"] is None:
        await start(order)
    elif order["state"] == "open":
        await look(order, "return")  # the payer may have come back from the pay page
    order = find(number)
    if order["state"] == "paid":
        return "<p>Paid</p>"
    if order["pay_url"] is None:
        return "<p>We look at your payment</p>"
    return f'<a href="{html.escape(order["pay_url"])}">Pay {order["amount"]}</a>'


@app.post("/payment-events", status_code=204)
async def told(request: fastapi.Request):
    try:
        # The body as it came: read and written again it would be other bytes.
        event = Webhook(os.environ["WEBHOOK_SECRET"]).verify(await request.body(), request.headers)
    except (WebhookVerificationError, ValueError):  # the library says ValueError to a malformed signature
        raise fastapi.HTTPException(401)
    if event["type"] == "payment.completed":
        if not sql("SELECT id FROM orders WHERE watch_code = ?", event["data"]["watch_code"])[0]:
            raise fastapi.HTTPException(409)  # of an order whose codes are not stored yet: it comes again
        settle(event["data"], request.headers["webhook-id"])
    # 204 also where it was known already: anything else is sent again.


sql("""CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY AUTOINCREMENT, amount INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'open', watch_code TEXT UNIQUE, pay_url TEXT, paid_by TEXT)""")
if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "3000")))
