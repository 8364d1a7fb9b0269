package daemon

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// TestMetricsMoveWithTheirAddressAndEndWithTheDaemon takes the listener from a port that
// is taken to a free one, to none, and to its end.
func TestMetricsMoveWithTheirAddressAndEndWithTheDaemon(t *testing.T) {
	b := newBook(slog.New(slog.NewTextHandler(io.Discard, nil)))
	l := newListener(b, func() api.Status { return api.Status{Node: "left"} })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); l.run(ctx) }()

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	l.use(taken.Addr().String())
	await(t, b, "the alarm", func() bool { return len(b.standing("")) == 1 && b.standing("")[0].Name == "listen" })

	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := other.Addr().String()
	other.Close()
	l.use(free)
	await(t, b, "the end of the alarm", func() bool { return len(b.standing("")) == 0 })
	serves := func() bool {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
		answer, err := client.Get("http://" + free + "/metrics")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		return err == nil && strings.Contains(string(text), `carpd_build_info{node="left"`)
	}
	poll(t, "metrics", serves)

	l.use("")
	poll(t, "no metrics", func() bool { return !serves() })
	l.use(free)
	poll(t, "metrics again", serves)
	stop()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the listener does not end")
	}
	if serves() {
		t.Error("it serves after its end")
	}
}

// await waits for events until something is so.
func await(t *testing.T, b *book, what string, is func() bool) {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		_, news := b.since(^uint64(0) >> 1)
		if is() {
			return
		}
		select {
		case <-news:
		case <-late:
			t.Fatalf("%s does not come", what)
		}
	}
}

// poll asks until something is so.
func poll(t *testing.T, what string, is func() bool) {
	t.Helper()
	late := time.After(10 * time.Second)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !is() {
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}
