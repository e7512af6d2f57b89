# Starts the payment of order 7, or of the order that is given, and waits until it is paid. Needs no gems.
require "json"
require "net/http"

TILLGATE = URI(ENV.fetch("TILLGATE_URL", "http://localhost:8700"))

def call(request)
  # The nil is for no proxy, whatever the environment says.
  answer = Net::HTTP.start(TILLGATE.host, TILLGATE.port, nil, read_timeout: 15) { |http| http.request(request) }
  payment = JSON.parse(answer.body)
  abort payment["detail"] unless answer.code == "200"
  payment
end

start = Net::HTTP::Post.new("/api/start_payment", "Content-Type" => "application/json")
start.body = { amount: 1000, reference: ARGV[0] || "7", redirect: "https://shop.example/thanks" }.to_json
payment = call(start)
puts "pay: #{payment["pay_url"]}"

60.times do
  if call(Net::HTTP::Get.new("/watch/#{payment["watch_code"]}"))["status"] == "completed"
    puts "paid"
    exit
  end
  sleep 1
end
abort "not paid yet"
