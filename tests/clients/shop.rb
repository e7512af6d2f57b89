# A shop that is told by webhook when an order is paid. Needs the gems sinatra, puma and sqlite3.
#
#     ruby shop.rb          serves it; set WEBHOOK_SECRET to a key of tillgate's webhook.secret_file
#     ruby shop.rb check    asks for each open order; let cron do this every few minutes
require "cgi"
require "json"
require "net/http"
require "openssl"
require "sinatra"
require "sqlite3"

TILLGATE = URI(ENV.fetch("TILLGATE_URL", "http://localhost:8700"))
TOKEN = ENV["TILLGATE_TOKEN"] # only where listen.token_file is set
SHOP = ENV.fetch("SHOP_URL", "http://localhost:3000") # its origin must be in redirect.allowed
Unavailable = Class.new(StandardError)

set port: ENV.fetch("PORT", "3000"), bind: "127.0.0.1", show_exceptions: false, absolute_redirects: false
set run: false if ARGV == ["check"]
$stdout.sync = true

# Runs one statement: the rows it finds, and how many it changed.
def sql(statement, *values)
  orders = SQLite3::Database.new(ENV.fetch("ORDERS", "orders.sqlite"), results_as_hash: true)
  orders.busy_timeout = 15_000
  [orders.execute(statement, values), orders.changes]
ensure
  orders&.close
end

def find_order(number) = sql("SELECT * FROM orders WHERE id = ?", number)[0].first

# Asks tillgate: the status (0 without a whole answer), the answer, and the seconds to wait that it asks for.
def ask(request)
  request["Authorization"] = "Bearer #{TOKEN}" if TOKEN
  limits = { open_timeout: 5, read_timeout: 15 }
  # The nil is for no proxy, whatever the environment says.
  answer = Net::HTTP.start(TILLGATE.host, TILLGATE.port, nil, limits) { |http| http.request(request) }
  [answer.code.to_i, JSON.parse(answer.body), answer["Retry-After"].to_i]
rescue SystemCallError, SocketError, IOError, Timeout::Error, Net::HTTPBadResponse, JSON::ParserError => error
  [0, { "detail" => error.message }, 0]
end

# Starts the order's payment. However often this is done, the order has one payment: the reference says so.
def start_payment(order)
  number = order["id"].to_s
  request = Net::HTTP::Post.new("/api/start_payment", "Content-Type" => "application/json")
  request.body = { amount: order["amount"], reference: number, redirect: "#{SHOP}/orders/#{number}" }.to_json
  [0.5, 1, 2, 4, nil].each do |wait|
    status, answer, asked = ask(request)
    is_paid = answer["error"] == "reference_paid" # of an earlier start, whose answer was lost
    if status == 200 || is_paid
      sql("UPDATE orders SET watch_code = ?, pay_url = ? WHERE id = ? AND watch_code IS NULL",
          answer["watch_code"], answer["pay_url"], number)
      return is_paid ? look(find_order(number), "start") : nil
    end
    # Also reference_mismatch: the order's payment is open for another amount.
    raise answer["detail"] if status.between?(1, 499) && status != 429
    raise Unavailable, answer["detail"] unless wait
    sleep([wait, [asked, 10].min].max)
  end
end

# Asks for the payment of an order. With no-cache, tillgate asks the gateway at once.
def look(order, source)
  status, payment, = ask(Net::HTTP::Get.new("/watch/#{order["watch_code"]}", "Cache-Control" => "no-cache"))
  status == 200 ? settle({ **payment, "watch_code" => order["watch_code"] }, source) : warn(payment["detail"])
end

# Marks the payment's order as paid: once, whoever says so and however often.
def settle(payment, source)
  return if payment["status"] != "completed"
  order = payment.values_at("watch_code", "amount") # the column is a number: 1000.00 and "1000" are 1000
  open = "UPDATE orders SET state = 'paid', paid_by = ? WHERE watch_code = ? AND amount = ? AND state = 'open'"
  if sql(open, source, *order)[1] == 1
    # Only here, once for each order. Send the goods from the table, which also survives a crash.
    puts "paid: #{payment["watch_code"]} by #{source}"
  elsif sql("SELECT id FROM orders WHERE watch_code = ? AND amount = ?", *order)[0].empty?
    warn "not the amount of an order: #{payment}"
  end
end

# A webhook may never come: this is what counts. Orders that nobody will pay any more should not stay open.
def check
  sql("SELECT * FROM orders WHERE state = 'open' AND watch_code IS NOT NULL")[0].each { |order| look(order, "check") }
end

# Standard Webhooks 1.0: whether tillgate sent this body, signed with this key, at most five minutes ago.
def signed?(body, id, time, signatures)
  return false unless id && signatures && time.to_s.match?(/\A\d{1,12}\z/) && (Time.now.to_i - time.to_i).abs <= 300
  key = ENV.fetch("WEBHOOK_SECRET").delete_prefix("whsec_").unpack1("m0")
  expected = "v1," + [OpenSSL::HMAC.digest("SHA256", key, "#{id}.#{time}.#{body}")].pack("m0")
  # Several while one key takes the place of another.
  signatures.split.any? { |signature| Rack::Utils.secure_compare(expected, signature) }
end

error Unavailable do
  headers "Retry-After" => "5"
  halt 503, "Payments are not possible at the moment. Try again."
end

post "/orders" do
  order = sql("INSERT INTO orders (amount) VALUES (?) RETURNING id", Integer(params["amount"]))[0].first
  redirect "/orders/#{order["id"]}", 303
end

get "/orders/:number" do |number|
  order = find_order(number) || halt(404)
  if order["watch_code"].nil?
    start_payment(order)
  elsif order["state"] == "open"
    look(order, "return") # the payer may have come back from the pay page
  end
  order = find_order(number)
  next "<p>Paid</p>" if order["state"] == "paid"
  next "<p>We look at your payment</p>" unless order["pay_url"]
  %(<a href="#{CGI.escapeHTML(order["pay_url"])}">Pay #{order["amount"]}</a>)
end

post "/payment-events" do
  # The body as it came: read and written again it would be other bytes.
  body = request.body.read
  id, time, signatures = request.env.values_at("HTTP_WEBHOOK_ID", "HTTP_WEBHOOK_TIMESTAMP", "HTTP_WEBHOOK_SIGNATURE")
  halt 401 unless signed?(body, id, time, signatures)
  event = JSON.parse(body)
  if event["type"] == "payment.completed"
    # Of an order whose codes are not stored yet: it comes again.
    halt 409 if sql("SELECT id FROM orders WHERE watch_code = ?", event["data"]["watch_code"])[0].empty?
    settle(event["data"], id)
  end
  204 # also where it was known already: anything else is sent again
end

sql("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY AUTOINCREMENT, amount INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'open', watch_code TEXT UNIQUE, pay_url TEXT, paid_by TEXT)")
check if ARGV == ["check"]
