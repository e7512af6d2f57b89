// A shop that is told by webhook when an order is paid. Needs Java 17 or later, and no packages.
//
//     java Shop.java    serves it; set WEBHOOK_SECRET to a key of tillgate's webhook.secret_file
import com.sun.net.httpserver.*;
import java.io.*;
import java.math.BigDecimal;
import java.net.*;
import java.net.http.*;
import java.nio.file.*;
import java.security.MessageDigest;
import java.time.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.regex.*;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Shop {
    static final String TILLGATE = env("TILLGATE_URL", "http://localhost:8700");
    static final String TOKEN = env("TILLGATE_TOKEN", ""); // only where listen.token_file is set
    static final String SHOP = env("SHOP_URL", "http://localhost:3000"); // its origin must be in redirect.allowed
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    // The order table. A file will do as long as this one process writes it; yours is in a database.
    static final Path FILE = Path.of(env("ORDERS", "orders.tsv"));
    static final Map<Integer, Order> ORDERS = new ConcurrentSkipListMap<>();
    record Order(int id, long amount, String state, String watchCode, String payUrl, String paidBy) {
        String row() {
            return String.join("\t", "" + id, "" + amount, state, watchCode, payUrl, paidBy);
        }
    }

    static synchronized Order save(Order order) throws IOException {
        ORDERS.put(order.id, order);
        var rows = String.join("\n", ORDERS.values().stream().map(Order::row).toList());
        var whole = Files.writeString(Path.of(FILE + ".new"), rows, StandardOpenOption.CREATE,
            StandardOpenOption.WRITE, StandardOpenOption.TRUNCATE_EXISTING, StandardOpenOption.SYNC);
        Files.move(whole, FILE, StandardCopyOption.ATOMIC_MOVE);
        return order;
    }

    /** Starts the order's payment. However often this is done, the order has one payment: the reference says so. */
    static void start(Order order) throws Exception {
        var body = "{\"amount\": %d, \"reference\": \"%d\", \"redirect\": \"%s/orders/%d\"}"
            .formatted(order.amount, order.id, SHOP, order.id);
        var request = request("/api/start_payment").header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body)).build();
        for (double wait = 0.5; ; wait *= 2) {
            var asked = 0L;
            try {
                var answer = CLIENT.send(request, HttpResponse.BodyHandlers.ofString());
                var payment = json(answer.body());
                // Of an earlier start, whose answer was lost.
                var isPaid = "reference_paid".equals(payment.get("error"));
                if (answer.statusCode() == 200 || isPaid) {
                    store(order, payment);
                    if (isPaid) look(ORDERS.get(order.id), "start");
                    return;
                }
                if (answer.statusCode() < 500 && answer.statusCode() != 429) {
                    // Also reference_mismatch: the order's payment is open for another amount.
                    throw new IllegalStateException(payment.get("detail"));
                }
                if (wait > 4) throw new TimeoutException(payment.get("detail"));
                asked = answer.headers().firstValueAsLong("Retry-After").orElse(0);
            } catch (IOException error) {
                if (wait > 4) throw new TimeoutException(error.toString());
            }
            Thread.sleep((long) (1000 * Math.max(wait, Math.min(asked, 10))));
        }
    }

    /** Stores the codes of an order: the first ones, and no others. */
    static synchronized void store(Order order, Map<String, String> payment) throws IOException {
        if (!ORDERS.get(order.id).watchCode.isEmpty()) return;
        var payUrl = payment.getOrDefault("pay_url", "");
        save(new Order(order.id, order.amount, order.state, payment.get("watch_code"), payUrl, ""));
    }

    /** Asks for the payment of an order. With no-cache, tillgate asks the gateway at once. */
    static void look(Order order, String source) throws IOException, InterruptedException {
        var watch = request("/watch/" + order.watchCode).header("Cache-Control", "no-cache").build();
        var answer = CLIENT.send(watch, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() == 200) settle(order.id, json(answer.body()), source);
    }

    /** Marks the order as paid: once, whoever says so and however often. With a database this is one UPDATE. */
    static synchronized void settle(int id, Map<String, String> payment, String source) throws IOException {
        if (!"completed".equals(payment.get("status"))) return;
        var order = ORDERS.get(id);
        var amount = payment.getOrDefault("amount", "null");
        // As numbers: the gateway may write 1000.00, or "1000"; or null.
        if (amount.equals("null") || new BigDecimal(amount).compareTo(BigDecimal.valueOf(order.amount)) != 0) {
            System.err.println("not the amount of an order: " + payment);
        } else if (order.state.equals("open")) {
            save(new Order(id, order.amount, "paid", order.watchCode, order.payUrl, source));
            // Only here, once for each order. Send the goods from the table, which also survives a crash.
            System.out.println("paid: " + order.watchCode + " by " + source);
        }
    }

    /** A webhook may never come: this is what counts. Orders that nobody will pay any more should not stay open. */
    static void check() {
        for (var order : ORDERS.values()) {
            if (!order.state.equals("open") || order.watchCode.isEmpty()) continue;
            try {
                look(order, "check");
            } catch (Exception error) {
                System.err.println(error);
            }
        }
    }

    /** Standard Webhooks 1.0: whether tillgate sent this body, signed with this key, at most five minutes ago. */
    static boolean isSigned(byte[] body, String id, String time, String signatures) throws Exception {
        if (id == null || time == null || signatures == null || !time.matches("[0-9]{1,12}")) return false;
        if (Math.abs(Instant.now().getEpochSecond() - Long.parseLong(time)) > 300) return false;
        var key = Base64.getDecoder().decode(env("WEBHOOK_SECRET", "").replaceFirst("^whsec_", ""));
        var mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        mac.update((id + "." + time + ".").getBytes());
        var expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes();
        // Several while one key takes the place of another.
        return Arrays.stream(signatures.split(" ")).anyMatch(one -> MessageDigest.isEqual(expected, one.getBytes()));
    }

    static void told(HttpExchange http) throws Exception {
        var head = http.getRequestHeaders();
        var id = head.getFirst("webhook-id");
        // The body as it came: read and written again it would be other bytes.
        var body = http.getRequestBody().readAllBytes();
        if (!isSigned(body, id, head.getFirst("webhook-timestamp"), head.getFirst("webhook-signature"))) {
            http.sendResponseHeaders(401, -1);
            return;
        }
        var event = json(new String(body));
        if (event.get("type").equals("payment.completed")) {
            var payment = json(event.get("data"));
            var watchCode = payment.get("watch_code");
            var order = ORDERS.values().stream().filter(one -> one.watchCode.equals(watchCode)).findAny();
            if (order.isEmpty()) {
                http.sendResponseHeaders(409, -1); // its codes are not stored yet: it comes again
                return;
            }
            settle(order.get().id, payment, id);
        }
        http.sendResponseHeaders(204, -1); // also where it was known already: anything else is sent again
    }

    static void orders(HttpExchange http) throws Exception {
        var form = new String(http.getRequestBody().readAllBytes());
        if (form.startsWith("amount=")) {
            var amount = Long.parseLong(form.substring(7));
            synchronized (Shop.class) {
                var order = save(new Order(ORDERS.size() + 1, amount, "open", "", "", ""));
                http.getResponseHeaders().set("Location", "/orders/" + order.id);
            }
            http.sendResponseHeaders(303, -1);
            return;
        }
        var order = ORDERS.get(Integer.valueOf(http.getRequestURI().getPath().replace("/orders/", "")));
        if (order.watchCode.isEmpty()) {
            start(order);
        } else if (order.state.equals("open")) {
            try {
                look(order, "return"); // the payer may have come back from the pay page
            } catch (IOException error) {
                System.err.println(error);
            }
        }
        order = ORDERS.get(order.id);
        var link = order.payUrl.replace("&", "&amp;").replace("\"", "&quot;");
        var page = order.state.equals("paid") ? "<p>Paid</p>" : link.isEmpty() ? "<p>We look at your payment</p>"
            : "<a href=\"" + link + "\">Pay " + order.amount + "</a>";
        http.sendResponseHeaders(200, page.length());
        http.getResponseBody().write(page.getBytes());
    }

    /** The members of a JSON object: texts as such, all else as it is written. Where you have a library, use that. */
    static Map<String, String> json(String text) {
        var members = new HashMap<String, String>();
        var tokens = Pattern.compile("\"(?:[^\"\\\\]|\\\\.)*\"|[{}\\[\\]:,]").matcher(text);
        String name = null;
        for (int depth = 0, from = 0; tokens.find(); ) {
            var token = tokens.group();
            if (depth == 1 && name == null && token.startsWith("\"")) name = plain(token);
            if (depth == 1 && token.equals(":")) from = tokens.end();
            if (depth == 1 && name != null && (token.equals(",") || token.equals("}"))) {
                members.put(name, plain(text.substring(from, tokens.start()).strip()));
                name = null;
            }
            depth += token.matches("[{\\[]") ? 1 : token.matches("[}\\]]") ? -1 : 0;
        }
        return members;
    }

    static String plain(String value) {
        if (!value.startsWith("\"")) return value;
        var escapes = Pattern.compile("\\\\(?:u(....)|.)").matcher(value.substring(1, value.length() - 1));
        return escapes.replaceAll(found -> Matcher.quoteReplacement(found.group(1) != null
            ? "" + (char) Integer.parseInt(found.group(1), 16)
            : found.group().equals("\\/") ? "/" : found.group().translateEscapes()));
    }

    static HttpRequest.Builder request(String path) {
        var request = HttpRequest.newBuilder(URI.create(TILLGATE + path)).timeout(Duration.ofSeconds(15));
        return TOKEN.isEmpty() ? request : request.header("Authorization", "Bearer " + TOKEN);
    }

    static String env(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }

    interface Page {
        void show(HttpExchange http) throws Exception;
    }

    static HttpHandler page(Page page) {
        return http -> {
            try {
                page.show(http);
            } catch (Exception error) {
                error.printStackTrace();
                if (error instanceof TimeoutException) http.getResponseHeaders().set("Retry-After", "5");
                http.sendResponseHeaders(error instanceof TimeoutException ? 503 : 500, -1);
            } finally {
                http.close();
            }
        };
    }

    public static void main(String[] arguments) throws Exception {
        if (Files.exists(FILE)) for (var row : Files.readAllLines(FILE)) {
            var cell = row.split("\t", -1);
            var id = Integer.parseInt(cell[0]);
            ORDERS.put(id, new Order(id, Long.parseLong(cell[1]), cell[2], cell[3], cell[4], cell[5]));
        }
        var every = (long) (1000 * Double.parseDouble(env("CHECK_EVERY", "300")));
        Executors.newScheduledThreadPool(1).scheduleWithFixedDelay(Shop::check, every, every, TimeUnit.MILLISECONDS);
        var port = Integer.parseInt(env("PORT", "3000"));
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/orders", page(Shop::orders));
        server.createContext("/payment-events", page(Shop::told));
        server.start();
    }
}
