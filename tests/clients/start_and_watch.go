// Starts the payment of order 7, or of the order that is given, and waits until it is paid. Needs no modules.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	tillgate, number := os.Getenv("TILLGATE_URL"), "7"
	if tillgate == "" {
		tillgate = "http://localhost:8700"
	}
	if len(os.Args) > 1 {
		number = os.Args[1]
	}
	http.DefaultClient.Timeout = 15 * time.Second // else it waits for ever
	order := fmt.Sprintf(`{"amount": 1000, "reference": %q, "redirect": "https://shop.example/thanks"}`, number)
	start := answer(http.Post(tillgate+"/api/start_payment", "application/json", strings.NewReader(order)))
	fmt.Println("pay:", start["pay_url"])
	for i := 0; i < 60; i++ {
		if answer(http.Get(fmt.Sprint(tillgate, "/watch/", start["watch_code"])))["status"] == "completed" {
			fmt.Println("paid")
			return
		}
		time.Sleep(time.Second)
	}
	fail("not paid yet")
}

// answer reads an answer; anything but a 200 ends the program with what is wrong.
func answer(response *http.Response, err error) (payment map[string]any) {
	if err != nil {
		fail(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&payment); err != nil {
		fail(err)
	}
	if response.StatusCode != http.StatusOK {
		fail(payment["detail"])
	}
	return payment
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
