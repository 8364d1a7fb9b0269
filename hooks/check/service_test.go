package check_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/check"
)

// service takes connections on loopback, or on a unix socket, each handled by handle.
func service(t *testing.T, network, address string, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	over := make(chan struct{})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				stop := context.AfterFunc(t.Context(), func() { c.Close() })
				defer stop()
				defer c.Close()
				go func() { <-over; c.Close() }()
				handle(c)
			})
		}
	})
	t.Cleanup(func() { close(over); l.Close(); running.Wait() })
	return l.Addr().String()
}

func hang(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func tcp(t *testing.T, c check.TCPConfig) hooks.Monitor {
	t.Helper()
	m, err := check.NewTCP(c)
	return opened(t, m, err)
}

func TestTCPConnectsSendsAndExpects(t *testing.T) {
	echo := service(t, "tcp", "127.0.0.1:0", func(c net.Conn) { _, _ = io.Copy(c, c) })
	silent := service(t, "tcp", "127.0.0.1:0", hang)
	closes := service(t, "tcp", "127.0.0.1:0", func(net.Conn) {})
	talks := service(t, "tcp", "[::1]:0", func(c net.Conn) {
		for range 1 << 10 {
			if _, err := c.Write([]byte(strings.Repeat("x", 1<<10))); err != nil {
				return
			}
		}
	})
	parts := service(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		for _, p := range []string{"220 ma", "il re", "ady\r\n"} {
			_, _ = c.Write([]byte(p))
		}
		hang(c)
	})
	path := filepath.Join(t.TempDir(), "s")
	service(t, "unix", path, func(c net.Conn) { _, _ = io.Copy(c, c) })

	says(t, tcp(t, check.TCPConfig{Address: silent}), hooks.Healthy, "takes connections")
	says(t, tcp(t, check.TCPConfig{Address: echo, Send: "PING\r\n", Expect: "PING"}), hooks.Healthy, "as expected")
	says(t, tcp(t, check.TCPConfig{Address: echo, SendFile: file(t, "s", "PING"), Expect: "PING"}), hooks.Healthy, "as expected")
	says(t, tcp(t, check.TCPConfig{Address: path, Send: "PING\r\n", Expect: "PING"}), hooks.Healthy, "as expected")
	says(t, tcp(t, check.TCPConfig{Address: parts, Expect: "mail ready"}), hooks.Healthy, "as expected")
	says(t, tcp(t, check.TCPConfig{Address: closes, Expect: "x"}), hooks.Unfit, "ended the connection after 0 bytes")
	says(t, tcp(t, check.TCPConfig{Address: talks, Expect: "y"}), hooks.Unfit, "not in the first 65536 bytes")
	says(t, tcp(t, check.TCPConfig{Address: free(t)}), hooks.Unfit, "refused")
	says(t, tcp(t, check.TCPConfig{Address: path + "x"}), hooks.Unfit, "no such file")
	gone := file(t, "s", "x")
	m := tcp(t, check.TCPConfig{Address: echo, SendFile: gone})
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	blind(t, m, "send_file")
}

// free is an address on which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// deadline looks with little time, and wants unfit within it.
func deadline(t *testing.T, m hooks.Monitor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	r, err := m.Monitor(ctx)
	if err != nil || r.Health != hooks.Unfit || !strings.Contains(r.Text, "no answer in time") {
		t.Errorf("%+v, %v", r, err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestServiceThatHangsIsUnfitInTime(t *testing.T) {
	silent := service(t, "tcp", "127.0.0.1:0", hang)
	deadline(t, tcp(t, check.TCPConfig{Address: silent, Expect: "x"}))
	deadline(t, tcp(t, check.TCPConfig{Address: silent, TLS: true}))
	for _, url := range []string{"http://" + silent, "https://" + silent, "http://" + service(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun"))
		hang(c)
	})} {
		m, err := check.NewHTTP(check.HTTPConfig{URL: url, Body: "x"})
		deadline(t, opened(t, m, err))
	}
}

func TestSecretsAreInNoReport(t *testing.T) {
	const secret = "topsecret"
	echo := service(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		b := make([]byte, 1<<12)
		n, _ := c.Read(b)
		_, _ = c.Write(b[:n])
	})
	closed := free(t)
	for _, address := range []string{echo, closed} {
		for _, c := range []check.TCPConfig{
			{Address: address, Send: secret, Expect: "other"}, {Address: address, SendFile: file(t, "s", secret), Expect: secret},
		} {
			r, err := tcp(t, c).Monitor(t.Context())
			hides(t, secret, r, err)
		}
		for _, c := range []check.HTTPConfig{
			{URL: "http://" + address + "/?token=" + secret},
			{URL: "https://" + address + "/?token=" + secret},
			{URL: "http://" + address, Headers: map[string]string{"X-Token": secret}},
			{URL: "http://" + address, AuthorizationFile: file(t, "a", "Bearer "+secret)},
		} {
			m, err := check.NewHTTP(c)
			r, err := opened(t, m, err).Monitor(t.Context())
			hides(t, secret, r, err)
		}
	}
}

// serve is a web server; settings nil: without TLS.
func serve(t *testing.T, settings *tls.Config) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "all is well") })
	mux.HandleFunc("/sick", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "all is well", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/asked", func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if r.TLS != nil {
			name = r.TLS.ServerName
		}
		fmt.Fprintf(w, "[%s %s %s %s %s]", r.Method, r.Host, name, r.Header.Get("Authorization"), r.Header.Get("X-Check"))
	})
	s := httptest.NewUnstartedServer(mux)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if settings != nil {
		s.TLS = settings
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func page(t *testing.T, c check.HTTPConfig) hooks.Monitor {
	t.Helper()
	m, err := check.NewHTTP(c)
	return opened(t, m, err)
}

func TestHTTPLooksAtStatusAndBody(t *testing.T) {
	s := serve(t, nil)
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/ok"}), hooks.Healthy, "status 200")
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/ok", Method: "HEAD"}), hooks.Healthy, "status 200")
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/ok", Body: "is well"}), hooks.Healthy, "status 200")
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/ok", Body: "is ill"}), hooks.Unfit, "without the text")
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/ok", Status: []string{"204", "3xx"}}), hooks.Unfit, "status 200")
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/sick", Body: "is well"}), hooks.Unfit, "status 503")
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/sick", Status: []string{"200", "503"}}), hooks.Healthy, "status 503")
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/moved"}), hooks.Unfit, "status 302")
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/asked", Host: "www.example.org:81", Headers: map[string]string{"x-check": "1"},
		AuthorizationFile: file(t, "a", "Bearer abc\nmore\n"), Body: "[GET www.example.org:81  Bearer abc 1]"}), hooks.Healthy, "")
	says(t, page(t, check.HTTPConfig{URL: "http://" + free(t) + "/"}), hooks.Unfit, "refused")
	says(t, page(t, check.HTTPConfig{URL: "http://" + service(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		_, _ = c.Write([]byte("SSH-2.0-OpenSSH\r\n"))
	})}), hooks.Unfit, "not HTTP")
	gone := file(t, "a", "x")
	m := page(t, check.HTTPConfig{URL: s.URL, AuthorizationFile: gone})
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	blind(t, m, "authorization_file")
	if _, err := check.NewHTTP(check.HTTPConfig{URL: s.URL, AuthorizationFile: file(t, "a", "Bearer topsecret\rX: 1")}); err == nil || strings.Contains(err.Error(), "topsecret") {
		t.Errorf("%v", err)
	}
}

func TestHTTPOverAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	service(t, "unix", path, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1<<12))
		_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	})
	says(t, page(t, check.HTTPConfig{URL: "http://localhost/health", Address: path, Body: "ok"}), hooks.Healthy, "http://localhost/health: status 200")
}

func TestCertificatesAreVerifiedAlways(t *testing.T) {
	s := serve(t, &tls.Config{})
	ca := file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	address := s.Listener.Addr().String()
	if !netip.MustParseAddrPort(address).Addr().Is4() {
		t.Fatalf("%s", address)
	}
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/ok"}), hooks.Unfit, "certificate")
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/ok", CAFile: ca}), hooks.Healthy, "status 200")
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/ok", CAFile: ca, Host: "other.example"}), hooks.Unfit, "certificate")
	says(t, page(t, check.HTTPConfig{URL: s.URL + "/asked", CAFile: ca, Host: "example.com", Body: "[GET example.com example.com"}), hooks.Healthy, "")
	says(t, page(t, check.HTTPConfig{URL: "https://example.com/ok", Address: address, CAFile: ca}), hooks.Healthy, "status 200")
	says(t, page(t, check.HTTPConfig{URL: "http://" + address + "/ok"}), hooks.Unfit, "status 400")

	says(t, tcp(t, check.TCPConfig{Address: address, TLS: true}), hooks.Unfit, "certificate")
	says(t, tcp(t, check.TCPConfig{Address: address, TLS: true, CAFile: ca}), hooks.Healthy, "takes connections")
	says(t, tcp(t, check.TCPConfig{Address: address, TLS: true, CAFile: ca, ServerName: "other.example"}), hooks.Unfit, "certificate")
	says(t, tcp(t, check.TCPConfig{Address: address, TLS: true, CAFile: ca, ServerName: "example.com", Send: "GET /ok HTTP/1.0\r\n\r\n", Expect: "all is well"}),
		hooks.Healthy, "as expected")
	if _, err := check.NewTCP(check.TCPConfig{Address: address, TLS: true, CAFile: file(t, "no.pem", "nothing")}); err == nil || !strings.Contains(err.Error(), "no certificate in it") {
		t.Errorf("%v", err)
	}
}
