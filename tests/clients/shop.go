// A shop that is told by webhook when an order is paid. Needs Go 1.19 or later, and no modules.
//
//	go run shop.go    serves it; set WEBHOOK_SECRET to a key of tillgate's webhook.secret_file
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	tillgate = env("TILLGATE_URL", "http://localhost:8700")
	token    = env("TILLGATE_TOKEN", "")                // only where listen.token_file is set
	shop     = env("SHOP_URL", "http://localhost:3000") // its origin must be in redirect.allowed
	file     = env("ORDERS", "orders.json")
	client   = &http.Client{Timeout: 15 * time.Second} // the default client waits for ever
	away     = errors.New("payments are not possible at the moment: try again")
)

// The order table. A file will do as long as this one process writes it; yours is in a database.
type order struct {
	ID, Amount                       int64
	State, WatchCode, PayURL, PaidBy string
}

var (
	orders []order
	table  sync.Mutex // held while orders is used
)

// change changes what holds for an order, and returns the order as it is then.
func change(id int64, with func(*order)) order {
	table.Lock()
	defer table.Unlock()
	before := orders[id-1]
	if with(&orders[id-1]); orders[id-1] != before {
		save()
	}
	return orders[id-1]
}

func save() {
	rows, err := json.Marshal(orders)
	if err == nil {
		err = os.WriteFile(file+".new", rows, 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// payment is what tillgate answers.
type payment struct {
	Status        any             // like "completed"; of a problem it is a number
	Amount        json.RawMessage // like 1000, 1000.00 or "1000", or null
	WatchCode     string          `json:"watch_code"`
	PayURL        string          `json:"pay_url"`
	Error, Detail string
}

// call asks tillgate: the status, 0 without a whole answer; the answer; and how long it asks to wait.
func call(method, path string, body []byte) (int, payment, time.Duration) {
	request, err := http.NewRequest(method, tillgate+path, bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Cache-Control", "no-cache") // of a watch: ask the gateway at once
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	var answer payment
	response, err := client.Do(request)
	if err != nil {
		return 0, payment{Detail: err.Error()}, 0
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return 0, payment{Detail: err.Error()}, 0
	}
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return response.StatusCode, answer, time.Duration(seconds) * time.Second
}

// start starts an order's payment. However often this is done, the order has one payment: the reference says so.
func start(o order) error {
	body, _ := json.Marshal(map[string]any{
		"amount": o.Amount, "reference": fmt.Sprint(o.ID), "redirect": fmt.Sprintf("%s/orders/%d", shop, o.ID),
	})
	for wait := time.Second / 2; ; wait *= 2 {
		status, answer, asked := call("POST", "/api/start_payment", body)
		isPaid := answer.Error == "reference_paid" // of an earlier start, whose answer was lost
		if status == 200 || isPaid {
			o = change(o.ID, func(o *order) {
				if o.WatchCode == "" { // the first answer, and no other
					o.WatchCode, o.PayURL = answer.WatchCode, answer.PayURL
				}
			})
			if isPaid {
				look(o, "start")
			}
			return nil
		}
		if status != 0 && status < 500 && status != 429 {
			return errors.New(answer.Detail) // reference_mismatch too: the payment is open for another amount
		}
		if wait > 4*time.Second {
			return away
		}
		if asked > 10*time.Second {
			asked = 10 * time.Second
		}
		if asked < wait {
			asked = wait
		}
		time.Sleep(asked)
	}
}

// look asks for the payment of an order.
func look(o order, source string) {
	status, answer, _ := call("GET", "/watch/"+o.WatchCode, nil)
	if status == 200 {
		settle(o.ID, answer, source)
	} else {
		log.Print(answer.Detail)
	}
}

// settle marks an order as paid: once, whoever says so and however often. With a database this is one statement,
// UPDATE orders SET state = 'paid' WHERE watch_code = … AND amount = … AND state = 'open'.
func settle(id int64, p payment, source string) {
	if p.Status != "completed" {
		return
	}
	change(id, func(o *order) {
		paid, ok := new(big.Rat).SetString(strings.Trim(string(p.Amount), `"`))
		if !ok || paid.Cmp(new(big.Rat).SetInt64(o.Amount)) != 0 {
			log.Printf("not the amount of an order: %s is paid with %s", o.WatchCode, p.Amount)
		} else if o.State == "open" {
			o.State, o.PaidBy = "paid", source
			// Only here, once for each order. Send the goods from the table, which also survives a crash.
			fmt.Println("paid:", o.WatchCode, "by", source)
		}
	})
}

// selected returns the orders for which this holds.
func selected(holds func(order) bool) (found []order) {
	table.Lock()
	defer table.Unlock()
	for _, o := range orders {
		if holds(o) {
			found = append(found, o)
		}
	}
	return found
}

// check asks for each open order. A webhook may never come: this is what counts. Orders that nobody will pay any more
// should not stay open.
func check(every time.Duration) {
	for range time.Tick(every) {
		for _, o := range selected(func(o order) bool { return o.State == "open" && o.WatchCode != "" }) {
			look(o, "check")
		}
	}
}

func create(w http.ResponseWriter, r *http.Request) {
	amount, err := strconv.ParseInt(r.PostFormValue("amount"), 10, 64)
	if err != nil {
		http.Error(w, "an amount, please", http.StatusBadRequest)
		return
	}
	table.Lock()
	defer table.Unlock()
	id := int64(len(orders) + 1)
	orders = append(orders, order{ID: id, Amount: amount, State: "open"})
	save()
	http.Redirect(w, r, fmt.Sprintf("/orders/%d", id), http.StatusSeeOther)
}

func show(w http.ResponseWriter, r *http.Request) {
	number := strings.TrimPrefix(r.URL.Path, "/orders/")
	found := selected(func(o order) bool { return fmt.Sprint(o.ID) == number })
	if len(found) == 0 {
		http.NotFound(w, r)
		return
	}
	o := found[0]
	var err error
	if o.WatchCode == "" {
		err = start(o)
	} else if o.State == "open" {
		look(o, "return") // the payer may have come back from the pay page
	}
	o = change(o.ID, func(*order) {})
	switch {
	case err == away:
		w.Header().Set("Retry-After", "5")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case err != nil:
		log.Print(err)
		http.Error(w, "something is wrong with this order", http.StatusInternalServerError)
	case o.State == "paid":
		io.WriteString(w, "<p>Paid</p>")
	case o.PayURL == "":
		io.WriteString(w, "<p>We look at your payment</p>")
	default:
		fmt.Fprintf(w, `<a href="%s">Pay %d</a>`, html.EscapeString(o.PayURL), o.Amount)
	}
}

// isSigned says whether tillgate sent this body, at most five minutes ago, as Standard Webhooks 1.0 has it.
func isSigned(body []byte, head http.Header) bool {
	id, timestamp := head.Get("webhook-id"), head.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if age := time.Since(time.Unix(seconds, 0)); err != nil || id == "" || age.Abs() > 5*time.Minute {
		return false
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(os.Getenv("WEBHOOK_SECRET"), "whsec_"))
	if err != nil || len(key) == 0 {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	expected := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	// Several while one key takes the place of another.
	for _, signature := range strings.Fields(head.Get("webhook-signature")) {
		if hmac.Equal(expected, []byte(signature)) {
			return true
		}
	}
	return false
}

func told(w http.ResponseWriter, r *http.Request) {
	// The body as it came: read and written again it would be other bytes.
	body, err := io.ReadAll(r.Body)
	if err != nil || !isSigned(body, r.Header) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var event struct {
		Type string
		Data payment
	}
	if err := json.Unmarshal(body, &event); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if event.Type == "payment.completed" {
		found := selected(func(o order) bool { return o.WatchCode == event.Data.WatchCode })
		if len(found) == 0 {
			w.WriteHeader(http.StatusConflict) // of an order whose codes are not stored yet: it comes again
			return
		}
		settle(found[0].ID, event.Data, r.Header.Get("webhook-id"))
	}
	w.WriteHeader(http.StatusNoContent) // also where it was known already: anything else is sent again
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	if rows, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(rows, &orders); err != nil {
			log.Fatal(err)
		}
	}
	every, err := strconv.ParseFloat(env("CHECK_EVERY", "300"), 64)
	if err != nil {
		log.Fatal(err)
	}
	go check(time.Duration(every * float64(time.Second)))
	http.HandleFunc("/orders", create)
	http.HandleFunc("/orders/", show)
	http.HandleFunc("/payment-events", told)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+env("PORT", "3000"), nil))
}
