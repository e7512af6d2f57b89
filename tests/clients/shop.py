"""A shop that is told by webhook when an order is paid. Needs the packages of requirements.txt.

    python3 shop.py          serves it; set WEBHOOK_SECRET to a key of tillgate's webhook.secret_file
    python3 shop.py check    asks for each open order; let cron do this every few minutes
"""

import os
import sqlite3
import sys
import time

import flask
import requests
from standardwebhooks import Webhook, WebhookVerificationError

tillgate = os.environ.get("TILLGATE_URL", "http://localhost:8700")
token = os.environ.get("TILLGATE_TOKEN")  # only where listen.token_file is set
headers = {"Authorization": f"Bearer {token}"} if token else {}
shop = os.environ.get("SHOP_URL", "http://localhost:3000")  # its origin must be in redirect.allowed
app = flask.Flask(__name__)


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


def start(order):
    """Starts the order's payment. However often this is done, the order has one payment: the reference says so."""
    number = str(order["id"])
    body = {"amount": order["amount"], "reference": number, "redirect": f"{shop}/orders/{number}"}
    for wait in (0.5, 1, 2, 4, None):
        try:
            answer = requests.post(f"{tillgate}/api/start_payment", json=body, headers=headers, timeout=15)
            payment = answer.json()
            is_paid = payment.get("error") == "reference_paid"  # of an earlier start, whose answer was lost
            if answer.ok or is_paid:
                sql("UPDATE orders SET watch_code = ?, pay_url = ? WHERE id = ? AND watch_code IS NULL",
                    payment["watch_code"], payment.get("pay_url"), number)
                return look(find(number), "start") if is_paid else None
            if answer.status_code < 500 and answer.status_code != 429:
                raise RuntimeError(payment["detail"])  # reference_mismatch too: it is open for another amount
            answer.raise_for_status()
        except requests.RequestException as error:
            if wait is None:
                raise
            time.sleep(max(wait, min(int(getattr(error.response, "headers", {}).get("Retry-After", 0)), 10)))


def look(order, source):
    """Asks for the payment of an order. With no-cache, tillgate asks the gateway at once."""
    asking = {"Cache-Control": "no-cache", **headers}
    answer = requests.get(f"{tillgate}/watch/{order['watch_code']}", headers=asking, timeout=15)
    if answer.ok:
        settle({**answer.json(), "watch_code": order["watch_code"]}, source)


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


@app.errorhandler(requests.RequestException)
def unavailable(_):
    return "Payments are not possible at the moment. Try again.", 503, {"Retry-After": "5"}


@app.post("/orders")
def create():
    rows, _ = sql("INSERT INTO orders (amount) VALUES (?) RETURNING id", int(flask.request.form["amount"]))
    return flask.redirect(f"/orders/{rows[0]['id']}", 303)


@app.get("/orders/<int:number>")
def show(number):
    order = find(number) or flask.abort(404)
    if order["watch_code"] is None:
        start(order)
    elif order["state"] == "open":  # the payer may have come back from the pay page
        try:
            look(order, "return")
        except requests.RequestException as error:
            app.logger.warning("%s", error)
    order = find(number)
    if order["state"] == "paid":
        return "<p>Paid</p>"
    page = '<a href="{{ pay_url }}">Pay {{ amount }}</a>' if order["pay_url"] else "<p>We look at your payment</p>"
    return flask.render_template_string(page, **order)


@app.post("/payment-events")
def told():
    try:
        # The body as it came: read and written again it would be other bytes.
        event = Webhook(os.environ["WEBHOOK_SECRET"]).verify(flask.request.get_data(), flask.request.headers)
    except (WebhookVerificationError, ValueError):  # the library says ValueError to a malformed signature
        flask.abort(401)
    if event["type"] == "payment.completed":
        if not sql("SELECT id FROM orders WHERE watch_code = ?", event["data"]["watch_code"])[0]:
            return "", 409  # of an order whose codes are not stored yet: it comes again
        settle(event["data"], flask.request.headers["webhook-id"])
    return "", 204  # also where it was known already: anything else is sent again


def check():
    """A webhook may never come: this is what counts. Orders that nobody will pay any more should not stay open."""
    for order in sql("SELECT * FROM orders WHERE state = 'open' AND watch_code IS NOT NULL")[0]:
        look(order, "check")


sql("""CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY AUTOINCREMENT, amount INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'open', watch_code TEXT UNIQUE, pay_url TEXT, paid_by TEXT)""")
if __name__ == "__main__":
    check() if sys.argv[1:] == ["check"] else app.run(port=int(os.environ.get("PORT", "3000")))
