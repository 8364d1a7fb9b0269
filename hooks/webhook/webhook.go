// Package webhook is the hook kind "webhook": it posts the event to a web server when the
// role moves.
//
//	kind: webhook
//	on: after-up
//	with:
//	  url: https://alerts.example.org/carp
//	  secret_file: /etc/carpd/alerts.key
//
// # What is sent
//
// The event as JSON, see hooks.Event, by POST, with these headers:
//
//	Content-Type       application/json
//	User-Agent         carpd
//	Idempotency-Key    of the event: the same for each try and if it comes again
//	Authorization      Bearer TOKEN, with token_file
//	Webhook-Id         the same as Idempotency-Key, without quotes; with secret_file
//	Webhook-Timestamp  seconds since 1970; with secret_file
//	Webhook-Signature  v1,BASE64 of the HMAC-SHA256 of ID.TIMESTAMP.BODY under the secret
//
// # What it promises
//
// A status of 2xx is success. After 408, 425, 429, 5xx and trouble on the way it is tried
// again, at most Config.Attempts times and within the timeout of the step, with pauses of
// 0.25 to 5 s, or what the server asks for in Retry-After up to 30 s. So the server may see
// an event more than once: Idempotency-Key tells. Others fail at once, redirections too.
//
// The certificate of the server is always verified. A token is never sent in the clear but
// to this machine itself. No error shows more of the address than the host, for some
// services take the path as a password.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/secret"
)

func init() { hooks.Register("webhook", New) }

const (
	// DefaultAttempts is how often it is tried unless the configuration says.
	DefaultAttempts = 5
	// DefaultEach is how long one try may take unless the configuration says.
	DefaultEach = 5 * time.Second

	maxAttempts = 20
	firstPause  = 250 * time.Millisecond
	longPause   = 5 * time.Second
	longestAsk  = 30 * time.Second // of Retry-After
	maxAnswer   = 4 << 10          // bytes of an answer that are read
	maxShown    = 200              // bytes of an answer that an error shows
	maxHeaders  = 20
)

// post is one address, and how to get there.
type post struct {
	Config
	client *http.Client
}

// Run posts the event, and again as long as that may help. It implements hooks.Hook.
func (p *post) Run(ctx context.Context, ev hooks.Event) error {
	body, err := json.Marshal(ev)
	if err != nil {
		return fmt.Errorf("webhook: encode event: %w", err)
	}
	for n, pause := 1, firstPause; ; n, pause = n+1, min(2*pause, longPause) {
		asked, err := p.try(ctx, body)
		var final permanent
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil, errors.As(err, &final):
			return err
		case n == p.Attempts:
			return fmt.Errorf("tried %d times: %w", n, err)
		}
		hooks.Logger(ctx).Info("webhook failed and is tried again", "try", n, "err", err)
		t := time.NewTimer(max(pause, min(asked, longestAsk)))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w after %d tries: %w", ctx.Err(), n, err)
		}
	}
}

// permanent is an error that trying again does not change.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// try posts once. asked is how long the server wants not to be asked again.
func (p *post) try(ctx context.Context, body []byte) (asked time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.Each)
	defer cancel()
	req, err := p.request(ctx, body, time.Now())
	if err != nil {
		return 0, permanent{err}
	}
	host := req.URL.Host
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, p.trouble(host, err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode/100 == 2 {
		return 0, nil
	}
	err = fmt.Errorf("webhook: post to %s: it answers %d %s%s", host, resp.StatusCode, http.StatusText(resp.StatusCode), shown(answer))
	if !again(resp.StatusCode) {
		return 0, permanent{err}
	}
	return retryAfter(resp.Header.Get("Retry-After"), time.Now()), err
}

// again reports whether a status may be another one soon.
func again(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status/100 == 5 && status != http.StatusNotImplemented
}

// retryAfter reads the header of this name: seconds, or a date.
func retryAfter(value string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// trouble is an error on the way, without the address that it shows.
func (p *post) trouble(host string, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	wrapped := fmt.Errorf("webhook: post to %s: %w", host, err)
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return permanent{fmt.Errorf("%w: name the authority that signed it in ca_file", wrapped)}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return permanent{wrapped}
	}
	return wrapped
}

// request makes the POST of one try.
func (p *post) request(ctx context.Context, body []byte, now time.Time) (*http.Request, error) {
	target, err := p.target()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("webhook: make request to %s: bad address", target.Host)
	}
	for name, value := range p.Headers {
		req.Header.Set(name, value)
	}
	key := keyOf(body)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "carpd")
	req.Header.Set("Idempotency-Key", strconv.Quote(key))
	if p.TokenFile != "" {
		token, err := secret.Read(p.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("webhook: token_file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if p.SecretFile != "" {
		shared, err := secret.Read(p.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("webhook: secret_file: %w", err)
		}
		stamp := strconv.FormatInt(now.Unix(), 10)
		req.Header.Set("Webhook-Id", key)
		req.Header.Set("Webhook-Timestamp", stamp)
		req.Header.Set("Webhook-Signature", Sign(shared, key, stamp, body))
	}
	return req, nil
}

// keyOf is the same for the same event, whatever node, instance and phase it is of: all
// of that is in it.
func keyOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:16])
}

// Sign returns what stands in Webhook-Signature, for those who check it: the scheme v1 of
// standardwebhooks.com. The key is the secret as it is, or what its base64 after "whsec_"
// says.
func Sign(shared, id, timestamp string, body []byte) string {
	key := []byte(shared)
	if text, prefixed := strings.CutPrefix(shared, "whsec_"); prefixed {
		if raw, err := base64.StdEncoding.DecodeString(text); err == nil {
			key = raw
		}
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// shown is the beginning of an answer for an error.
func shown(answer []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(answer)), "\n")
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, line[:min(len(line), maxShown)])
	if line == "" {
		return ""
	}
	return ": " + line
}
