// Starts a payment and waits until it is paid, with a client that openapi-generator made of /openapi.json:
//
// openapi-generator-cli generate -g typescript-fetch -i http://localhost:8700/openapi.json \
//   --additional-properties importFileExtension=.js -o tillgate
import { Configuration, PaymentsApi, ProblemFromJSON, ResponseError } from "./tillgate/index.js";

declare const process: { env: Record<string, string | undefined>; exit(code: number): never };

const payments = new PaymentsApi(new Configuration({ basePath: process.env.TILLGATE_URL ?? "http://localhost:8700" }));

const order = { amount: 1000, redirect: "https://shop.example/thanks" };
try {
  const started = await payments.startPayment({ startRequest: order, idempotencyKey: "order-7" });
  console.log("pay:", started.payUrl);
  // Without If-None-Match: this client takes a 304 for a failure.
  for (let i = 0; i < 60; i++) {
    const payment = await payments.watchPayment({ watchCode: started.watchCode, wait: 25 });
    if (payment?.status === "completed") {
      console.log("paid");
      process.exit(0);
    }
  }
  console.error("not paid yet");
} catch (failed) {
  if (!(failed instanceof ResponseError)) throw failed;
  const problem = ProblemFromJSON(await failed.response.json());
  console.error(`${problem.error}: ${problem.detail}`);
}
process.exit(1);
