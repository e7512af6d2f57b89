// A shop that is told by webhook when an order is paid. Needs Node 18 or later, and `npm ci` in this directory.
//
//     node shop.mjs    serves it; set WEBHOOK_SECRET to a key of tillgate's webhook.secret_file
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import express from "express";
import { Webhook } from "standardwebhooks";

const tillgate = process.env.TILLGATE_URL ?? "http://localhost:8700";
const token = process.env.TILLGATE_TOKEN; // only where listen.token_file is set
const headers = token ? { Authorization: `Bearer ${token}` } : {};
const shop = process.env.SHOP_URL ?? "http://localhost:3000"; // its origin must be in redirect.allowed
const webhook = new Webhook(process.env.WEBHOOK_SECRET);

// The order table. A file will do as long as this one process writes it; yours is in a database.
const file = process.env.ORDERS ?? "orders.json";
const orders = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, "utf8")) : [];
function save() {
  fs.writeFileSync(`${file}.new`, JSON.stringify(orders), { flush: true });
  fs.renameSync(`${file}.new`, file);
}

// Starts the order's payment. However often this is done, the order has one payment: the reference says so.
async function start(order) {
  const request = {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify({ amount: order.amount, reference: order.id, redirect: `${shop}/orders/${order.id}` }),
  };
  for (const wait of [0.5, 1, 2, 4, 0]) {
    let status, answer, asked;
    try {
      const signal = AbortSignal.timeout(15_000);
      const response = await fetch(`${tillgate}/api/start_payment`, { ...request, signal });
      answer = await response.json();
      [status, asked] = [response.status, Number(response.headers.get("retry-after") ?? 0)];
    } catch (error) {
      [status, asked, answer] = [0, 0, { detail: String(error) }];
    }
    const isPaid = answer.error === "reference_paid"; // of an earlier start, whose answer was lost
    if (status === 200 || isPaid) {
      if (!order.watch_code) Object.assign(order, { watch_code: answer.watch_code, pay_url: answer.pay_url });
      save();
      return isPaid && look(order, "start");
    }
    // Also reference_mismatch: the order's payment is open for another amount.
    if (status && status < 500 && status !== 429) throw new Error(answer.detail);
    // Express answers with this status and these fields.
    if (!wait) throw Object.assign(new Error(answer.detail), { status: 503, headers: { "Retry-After": "5" } });
    await sleep(1000 * Math.max(wait, Math.min(asked, 10)));
  }
}

// Asks for the payment of an order. With no-cache, tillgate asks the gateway at once.
async function look(order, source) {
  const asking = { headers: { "Cache-Control": "no-cache", ...headers }, signal: AbortSignal.timeout(15_000) };
  const response = await fetch(`${tillgate}/watch/${order.watch_code}`, asking);
  if (response.ok) settle(order, await response.json(), source);
}

// Marks the order as paid: once, whoever says so and however often. With a database this is one statement,
// UPDATE orders SET state = 'paid' WHERE watch_code = … AND amount = … AND state = 'open'.
function settle(order, payment, source) {
  if (payment.status !== "completed") return;
  // As numbers: the gateway may write 1000.00, or "1000".
  if (Number(payment.amount) !== order.amount) {
    return console.error("not the amount of an order:", JSON.stringify(payment));
  }
  if (order.state !== "open") return;
  Object.assign(order, { state: "paid", paid_by: source });
  save();
  // Only here, once for each order. Send the goods from the table, which also survives a crash.
  console.log("paid:", order.watch_code, "by", source);
}

const app = express();
app.post("/orders", express.urlencoded(), (request, response) => {
  const order = { id: orders.length + 1, amount: Number(request.body.amount), state: "open" };
  orders.push(order);
  save();
  response.redirect(303, `/orders/${order.id}`);
});

app.get("/orders/:id", async (request, response) => {
  const order = orders[request.params.id - 1];
  if (!order) return response.sendStatus(404);
  if (!order.watch_code) await start(order);
  else if (order.state === "open") await look(order, "return").catch(console.error); // the payer may have come back
  if (order.state === "paid") return response.send("<p>Paid</p>");
  const link = order.pay_url?.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
  response.send(link ? `<a href="${link}">Pay ${order.amount}</a>` : "<p>We look at your payment</p>");
});

// The body as it came: read and written again it would be other bytes.
app.post("/payment-events", express.raw({ type: "application/json" }), (request, response) => {
  let event;
  try {
    event = webhook.verify(request.body, request.headers);
  } catch {
    return response.sendStatus(401);
  }
  if (event.type === "payment.completed") {
    const order = orders.find(({ watch_code }) => watch_code === event.data.watch_code);
    if (!order) return response.sendStatus(409); // its codes are not stored yet: it comes again
    settle(order, event.data, request.headers["webhook-id"]);
  }
  response.sendStatus(204); // also where it was known already: anything else is sent again
});

// A webhook may never come: this is what counts. Orders that nobody will pay any more should not stay open.
async function check() {
  const open = orders.filter((order) => order.state === "open" && order.watch_code);
  for (const order of open) await look(order, "check");
}
setInterval(() => check().catch(console.error), Number(process.env.CHECK_EVERY ?? 300) * 1000);

app.listen(Number(process.env.PORT ?? 3000), "127.0.0.1");
