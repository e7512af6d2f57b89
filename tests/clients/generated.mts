// Starts a payment and waits until it is paid, with openapi-fetch and types that openapi-typescript made of /openapi.json:
//
// npx openapi-typescript http://localhost:8700/openapi.json -o tillgate.d.ts
import createClient from "openapi-fetch";
import type { paths } from "./tillgate.js";

declare const process: { env: Record<string, string | undefined>; exit(code: number): never };

const tillgate = createClient<paths, "application/json" | "application/problem+json">({ baseUrl: process.env.TILLGATE_URL ?? "http://localhost:8700" });

const { data: started, error } = await tillgate.POST("/api/start_payment", {
  params: { header: { "Idempotency-Key": "order-7" } },
  body: { amount: 1000, redirect: "https://shop.example/thanks" },
});
if (!started) {
  console.error(`${error.error}: ${error.detail}`);
  process.exit(1);
}
console.log("pay:", started.pay_url);

let known = "";
for (let i = 0; i < 60; i++) {
  const { data: payment, response } = await tillgate.GET("/watch/{watch_code}", {
    params: { path: { watch_code: started.watch_code }, query: { wait: 25 }, header: { "If-None-Match": known } },
  });
  known = response.headers.get("ETag") ?? "";
  if (payment?.status === "completed") {
    console.log("paid");
    process.exit(0);
  }
}
console.error("not paid yet");
process.exit(1);
