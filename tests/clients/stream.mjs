// Prints each state of a payment as it comes: of a new one of 1000, or of the watch code that is given.
// Needs the package eventsource, `npm ci` in this directory, and the Node that it asks for: 22.12 or later.
import { EventSource } from "eventsource";

const tillgate = process.env.TILLGATE_URL ?? "http://localhost:8700";

function fail(why) {
  console.error(why);
  process.exit(1);
}

async function start() {
  const answer = await fetch(`${tillgate}/api/start_payment`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ amount: 1000 }),
  });
  const payment = await answer.json();
  if (!answer.ok) fail(payment.detail);
  console.log("pay:", payment.pay_url);
  return payment.watch_code;
}

// An EventSource that waits before it comes back does not keep the program running.
const running = setInterval(() => {}, 60_000);

function follow(watchCode) {
  const stream = new EventSource(`${tillgate}/watch/${watchCode}`);
  // After a reconnect the same state may come once more.
  stream.addEventListener("payment", ({ data }) => console.log(JSON.parse(data).status));
  stream.addEventListener("problem", ({ data }) => fail(JSON.parse(data).detail));
  stream.addEventListener("error", ({ code, message = "the stream has ended" }) => {
    if (code === 204) return clearInterval(running); // Everything was told.
    if (code < 500) fail(message);
    console.error("coming back:", message);
    // After a broken connection an EventSource comes back by itself; after a 503 it gives up.
    if (stream.readyState === EventSource.CLOSED) setTimeout(follow, 1000, watchCode);
  });
}

follow(process.argv[2] ?? (await start()));
