package webhook

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/secret"
)

// Config is the configuration of one address.
type Config struct {
	URL        string            `yaml:"url"`         // http or https; this or URLFile is required
	URLFile    string            `yaml:"url_file"`    // a file with the address, where that is a secret itself
	TokenFile  string            `yaml:"token_file"`  // a file with a token, sent as Authorization: Bearer
	SecretFile string            `yaml:"secret_file"` // a file with the key of Webhook-Signature
	CAFile     string            `yaml:"ca_file"`     // certificates of authorities in PEM, instead of the system's
	Headers    map[string]string `yaml:"headers"`     // to add; nothing secret
	Attempts   int               `yaml:"attempts"`    // 1 to 20; 0 means DefaultAttempts
	Each       time.Duration     `yaml:"each"`        // of one try, at most a minute; 0 means DefaultEach
}

// New returns a hook that posts. It reads all files once, and reports all faults at once.
func New(c Config) (hooks.Hook, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Attempts == 0 {
		c.Attempts = DefaultAttempts
	}
	if c.Each == 0 {
		c.Each = DefaultEach
	}
	if c.Attempts < 1 || c.Attempts > maxAttempts {
		fault("attempts %d: use 1 to %d", c.Attempts, maxAttempts)
	}
	if c.Each < 0 || c.Each > time.Minute {
		fault("each %v: use 1ms to 1m", c.Each)
	}
	p := &post{Config: c}
	if _, err := p.target(); err != nil {
		faults = append(faults, err)
	}
	for key, path := range map[string]string{"token_file": c.TokenFile, "secret_file": c.SecretFile} {
		if path == "" {
			continue
		}
		if _, err := secret.Read(path); err != nil {
			fault("%s: %w", key, err)
		}
	}
	roots, err := authorities(c.CAFile)
	faults = append(faults, err)
	faults = append(faults, checkHeaders(c.Headers)...)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	p.client = client(roots)
	return p, nil
}

// client makes connections that live for one request, to the address itself: no proxy of
// the daemon's environment, no redirection.
func client(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// target returns the address. Errors show nothing of it but the host.
func (c Config) target() (*url.URL, error) {
	text, from := c.URL, "url"
	if c.URLFile != "" {
		from = "url_file"
		if c.URL != "" {
			return nil, errors.New("url, url_file: keep one of them")
		}
		var err error
		if text, err = secret.Read(c.URLFile); err != nil {
			return nil, fmt.Errorf("url_file: %w", err)
		}
	}
	u, err := url.Parse(text)
	switch {
	case text == "":
		return nil, errors.New("url: required: write https://HOST/PATH")
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, fmt.Errorf("%s: write https://HOST/PATH", from)
	case u.User != nil:
		return nil, fmt.Errorf("%s: it has a name or password: use token_file", from)
	case u.Scheme == "http" && (c.TokenFile != "" || c.URLFile != "") && !loopback(u.Hostname()):
		return nil, fmt.Errorf("%s: a secret would cross the network in the clear: use https", from)
	}
	return u, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// authorities reads the file of that name; nil are the system's.
func authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca_file: %s has no certificate in PEM", path)
	}
	return pool, nil
}

// checkHeaders refuses those that are secrets, or not the operator's to set.
func checkHeaders(headers map[string]string) (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(headers) > maxHeaders {
		fault("headers: more than %d", maxHeaders)
	}
	for name, value := range headers {
		switch textproto.CanonicalMIMEHeaderKey(name) {
		case "Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key":
			fault("headers: %s is a secret: use token_file", name)
		case "Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection", "User-Agent", "Idempotency-Key",
			"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature":
			fault("headers: %s is set already", name)
		}
		if !token(name) || !plain(value) {
			fault("headers: %q: bad name or value", name)
		}
	}
	return faults
}

// token reports whether s is one of RFC 9110, 5.6.2: what a header may be called.
func token(s string) bool {
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		default:
			return false
		}
	}
	return s != ""
}

func plain(s string) bool {
	for _, r := range s {
		if r < ' ' || r > '~' {
			return false
		}
	}
	return true
}
