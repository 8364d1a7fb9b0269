package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/metrics"
)

const (
	maxScrapers = 16               // connections at once; more wait until one ends
	listenAgain = 5 * time.Second  // before an address that cannot be had is tried again
	scraperTime = 30 * time.Second // between two requests of a connection
)

// listener answers /metrics on the address of `listen`. It is no part of what keeps
// addresses up: where it cannot listen that is an alarm, and it tries again.
type listener struct {
	book    *book
	handler http.Handler
	want    chan string // capacity 1: another address; "": none
}

func newListener(b *book, status func() api.Status) *listener {
	return &listener{b, metrics.Handler(status), make(chan string, 1)}
}

// use changes the address. It does not wait, and is called by one goroutine at a time.
func (l *listener) use(address string) {
	select {
	case <-l.want: // nobody has seen that one
	default:
	}
	l.want <- address
}

// run serves until ctx ends.
func (l *listener) run(ctx context.Context) {
	address := ""
	for {
		over, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func(address string) {
			defer close(done)
			l.hold(over, address)
		}(address) // another one may come before it begins
		select {
		case address = <-l.want:
		case <-ctx.Done():
		}
		cancel()
		<-done
		if ctx.Err() != nil {
			return
		}
	}
}

// hold serves on one address until ctx ends, however often that fails.
func (l *listener) hold(ctx context.Context, address string) {
	const alarm = "listen"
	for address != "" && ctx.Err() == nil {
		socket, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err == nil {
			l.book.clear("", alarm)
			err = serveMetrics(ctx, socket, l.handler)
		}
		if ctx.Err() != nil {
			break
		}
		l.book.raise("", alarm, fmt.Sprintf("there are no metrics: %v. Is the address on this node, and the port free? It is tried again.", err))
		again := time.NewTimer(listenAgain)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
	l.book.clear("", alarm)
}

// serveMetrics answers on a socket until ctx ends, and closes it.
func serveMetrics(ctx context.Context, socket net.Listener, h http.Handler) error {
	room := make(chan struct{}, maxScrapers)
	srv := &http.Server{
		Handler: h, MaxHeaderBytes: maxHeader, ReadTimeout: clientTime, WriteTimeout: 2 * clientTime, IdleTimeout: scraperTime,
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				<-room
			}
		},
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(door{socket, room})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return errors.Join(err, srv.Close())
}
