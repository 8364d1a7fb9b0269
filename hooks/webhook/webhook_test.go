package webhook

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
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
	"github.com/carpd/carpd/hooks/hookstest"
)

func open(t *testing.T, c Config) hooks.Hook {
	t.Helper()
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// request is what a server got.
type request struct {
	*http.Request
	body string
}

// receiver is a server that answers with these statuses, the last one for ever.
type receiver struct {
	mu       sync.Mutex
	statuses []int
	got      []request
	header   http.Header // of answers
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, request{req, string(body)})
	status := r.statuses[0]
	if len(r.statuses) > 1 {
		r.statuses = r.statuses[1:]
	}
	for k, v := range r.header {
		w.Header()[k] = v
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, "status\x1b %d\nsecond line", status)
}

func (r *receiver) requests() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}

// serve starts a server, with TLS and its certificate in a file.
func serve(t *testing.T, statuses ...int) (r *receiver, url, ca string) {
	t.Helper()
	r = &receiver{statuses: statuses}
	s := httptest.NewUnstartedServer(r)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return r, s.URL, file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

func TestConformance(t *testing.T) {
	_, url, ca := serve(t, http.StatusNoContent)
	hookstest.Conformance(t, func() hooks.Hook { return open(t, Config{URL: url, CAFile: ca}) })
}

func TestEventIsPostedWithItsKeyTokenAndSignature(t *testing.T) {
	r, url, ca := serve(t, 200)
	token, key := file(t, "t0ken\n"), file(t, "shared secret\n")
	h := open(t, Config{URL: url + "/carp?x=1", CAFile: ca, TokenFile: token, SecretFile: key, Headers: map[string]string{"X-Site": "eu-1"}})
	up := hookstest.SampleEvent(hooks.AfterUp)
	down := up
	down.Epoch++
	for _, ev := range []hooks.Event{up, up, down} {
		if err := h.Run(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
	}
	got := r.requests()
	if len(got) != 3 {
		t.Fatalf("%d requests", len(got))
	}
	first := got[0]
	want, _ := json.Marshal(up)
	if first.Method != http.MethodPost || first.URL.String() != "/carp?x=1" || first.body != string(want) {
		t.Errorf("got %s %s %s", first.Method, first.URL, first.body)
	}
	id, stamp := first.Header.Get("Webhook-Id"), first.Header.Get("Webhook-Timestamp")
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Authorization": "Bearer t0ken", "X-Site": "eu-1", "User-Agent": "carpd",
		"Idempotency-Key": `"` + id + `"`, "Webhook-Signature": Sign("shared secret", id, stamp, want),
	} {
		if first.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, first.Header.Get(name), want)
		}
	}
	if again, other := got[1].Header.Get("Webhook-Id"), got[2].Header.Get("Webhook-Id"); id == "" || again != id || other == id {
		t.Errorf("keys %s, %s of the same event, %s of another", id, again, other)
	}
	if stamp == "" {
		t.Error("no timestamp")
	}
	if err := os.WriteFile(token, []byte("new\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Run(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	if got := r.requests()[3].Header.Get("Authorization"); got != "Bearer new" {
		t.Errorf("after the token changed: %s", got)
	}
}

// The vector is of standardwebhooks.com's reference libraries.
func TestSignatureIsThatOfStandardWebhooks(t *testing.T) {
	got := Sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPassingTroubleIsTriedAgainWithTheSameKey(t *testing.T) {
	r, url, ca := serve(t, 503, 429, 204)
	h := open(t, Config{URL: url, CAFile: ca})
	if err := h.Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp)); err != nil {
		t.Fatal(err)
	}
	got := r.requests()
	if len(got) != 3 || got[0].Header.Get("Idempotency-Key") != got[2].Header.Get("Idempotency-Key") {
		t.Errorf("%d requests", len(got))
	}
}

func TestTriesAreBounded(t *testing.T) {
	r, url, ca := serve(t, 500)
	err := open(t, Config{URL: url, CAFile: ca, Attempts: 2}).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp))
	if n := len(r.requests()); n != 2 || err == nil || !strings.Contains(err.Error(), "tried 2 times") || !strings.Contains(err.Error(), "500 Internal Server Error: status 500") {
		t.Errorf("%d requests, %v", n, err)
	}
	r, url, ca = serve(t, 503)
	r.header = http.Header{"Retry-After": {"20"}}
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = open(t, Config{URL: url, CAFile: ca}).Run(ctx, hookstest.SampleEvent(hooks.AfterUp))
	if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || len(r.requests()) != 1 || took > 5*time.Second {
		t.Errorf("%d requests in %v, though the server wants to be left alone: %v", len(r.requests()), took, err)
	}
}

func TestWhatDoesNotPassFailsAtOnce(t *testing.T) {
	for _, status := range []int{400, 401, 404, 410, 501, 301, 308} {
		r, url, ca := serve(t, status)
		r.header = http.Header{"Location": {url + "/elsewhere"}}
		err := open(t, Config{URL: url, CAFile: ca}).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp))
		if n := len(r.requests()); err == nil || n != 1 {
			t.Errorf("%d: %d requests, %v", status, n, err)
		}
	}
}

func TestCertificateIsAlwaysVerified(t *testing.T) {
	r, url, ca := serve(t, 200)
	other := authority(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "https://"), ":")
	for _, c := range []Config{{URL: url}, {URL: url, CAFile: other}, {URL: "https://localhost:" + port, CAFile: ca}} {
		err := open(t, c).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp))
		if err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s with %q: %v", c.URL, c.CAFile, err)
		}
	}
	if n := len(r.requests()); n > 0 {
		t.Errorf("%d requests reached a server that was not verified", n)
	}
}

// authority returns the file of one that has signed nothing.
func authority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})))
}

func TestSecretsAreInNoError(t *testing.T) {
	_, url, ca := serve(t, 404)
	for _, address := range []string{url + "/s3cret?k=s3cret", "https://127.0.0.1:1/s3cret", "https://no-such-host.invalid/s3cret"} {
		h := open(t, Config{URLFile: file(t, address+"\n"), CAFile: ca, TokenFile: file(t, "s3cret"), Attempts: 1})
		if err := h.Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp)); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"ftp://h/s3cret", "https://u:s3cret@h/", "https://h:s3cret/", "http://192.0.2.1/s3cret", "://s3cret"} {
		if _, err := New(Config{URLFile: file(t, address)}); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestServerThatHangsIsLeftAtTheDeadline(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer s.Close()
	defer close(release)
	began := time.Now()
	err := open(t, Config{URL: s.URL, Each: 100 * time.Millisecond, Attempts: 2}).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp))
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "tried 2 times") || took > 5*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := open(t, Config{URL: s.URL}).Run(ctx, hookstest.SampleEvent(hooks.AfterUp)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	r, url, ca := serve(t, 200)
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	if err := open(t, Config{URL: url, CAFile: ca}).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp)); err != nil || len(r.requests()) != 1 {
		t.Error(err)
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	now := time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0,
		now.Add(9 * time.Second).Format(http.TimeFormat): 9 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):      0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func TestConfigurationThatCannotWorkIsRefusedWithAllItsFaults(t *testing.T) {
	_, err := New(Config{Attempts: 21, Each: time.Hour, TokenFile: "/no/such", SecretFile: "key", CAFile: "/no/such",
		Headers: map[string]string{"Authorization": "x", "Host": "x", "a b": "x", "X-Ok": "a\nb"}})
	for _, want := range []string{
		"url: required", "attempts 21", "each 1h", "token_file: secret: read /no/such: it does not exist", "secret_file: ", "ca_file: ",
		"Authorization is a secret: use token_file", "Host is set already", `"a b"`, `"X-Ok"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	token := file(t, "t")
	for _, c := range []Config{
		{URL: "https://h", URLFile: token}, {URL: "http://h", TokenFile: token}, {URL: "h/x"}, {URL: "https://u@h"}, {URL: "https://h", CAFile: token},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	for _, c := range []Config{{URL: "http://h"}, {URL: "http://[::1]:80/", TokenFile: token}, {URL: "https://h", TokenFile: token}} {
		if _, err := New(c); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if !loopback(netip.MustParseAddr("127.9.9.9").String()) || loopback("127.0.0.1.example.org") {
		t.Error("loopback")
	}
}
