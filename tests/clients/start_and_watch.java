// Starts the payment of order 7, or of the order that is given, and waits until it is paid. Needs Java 17 or later.
import java.net.URI;
import java.net.http.*;
import java.util.regex.Pattern;

class StartAndWatch {
    static final String TILLGATE = System.getenv().getOrDefault("TILLGATE_URL", "http://localhost:8700");
    public static void main(String[] arguments) throws Exception {
        var order = "{\"amount\": 1000, \"reference\": \"%s\", \"redirect\": \"https://shop.example/thanks\"}"
            .formatted(arguments.length > 0 ? arguments[0] : "7");
        var start = call(HttpRequest.newBuilder(URI.create(TILLGATE + "/api/start_payment"))
            .header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(order)));
        System.out.println("pay: " + text(start, "pay_url"));
        // Each answer waits for a change, for ten seconds at most.
        var watch = HttpRequest.newBuilder(URI.create(TILLGATE + "/watch/" + text(start, "watch_code") + "?wait=10"));
        boolean paid = false;
        for (int i = 0; i < 6 && !paid; i++) paid = text(call(watch), "status").equals("completed");
        System.out.println(paid ? "paid" : "not paid yet");
        System.exit(paid ? 0 : 1);
    }

    static String call(HttpRequest.Builder request) throws Exception {
        var answer = HttpClient.newHttpClient().send(request.build(), HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() == 200) return answer.body();
        System.err.println(text(answer.body(), "detail"));
        System.exit(1);
        return "";
    }

    /** A text member of a flat JSON object; a library does that better. */
    static String text(String json, String name) {
        return Pattern.compile("\"" + name + "\": *\"([^\"]*)\"").matcher(json).results().findFirst().get().group(1);
    }
}
