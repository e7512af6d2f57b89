// Starts the payment of order 7, or of the order that is given, and waits until it is paid. Needs Node 18 or later.
import { setTimeout as sleep } from "node:timers/promises";

const tillgate = process.env.TILLGATE_URL ?? "http://localhost:8700";
const order = process.argv[2] ?? "7";

const start = await fetch(`${tillgate}/api/start_payment`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ amount: 1000, reference: order, redirect: "https://shop.example/thanks" }),
});
const payment = await start.json();
if (!start.ok) {
  console.error(payment.detail);
  process.exit(1);
}
console.log("pay:", payment.pay_url);

let paid = false;
for (let i = 0; i < 60 && !paid; i++) {
  const watch = await fetch(`${tillgate}/watch/${payment.watch_code}`);
  paid = watch.ok && (await watch.json()).status === "completed";
  if (!paid) await sleep(1000);
}
console.log(paid ? "paid" : "not paid yet");
process.exitCode = paid ? 0 : 1;
