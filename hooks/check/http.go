package check

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/secret"
)

func init() { hooks.RegisterMonitor("http", NewHTTP) }

// HTTPConfig is the configuration of kind http.
type HTTPConfig struct {
	URL     string            `yaml:"url"`     // http:// or https://; required
	Address string            `yaml:"address"` // connect there instead of to the host of the URL: host:port or a unix socket
	Host    string            `yaml:"host"`    // the header Host, the name in the certificate, and in SNI; default: of the URL
	Method  string            `yaml:"method"`  // GET (default), HEAD or OPTIONS: none that changes anything
	Headers map[string]string `yaml:"headers"` // further headers
	// AuthorizationFile holds the header Authorization, such as "Bearer TOKEN".
	AuthorizationFile string   `yaml:"authorization_file"`
	Status            []string `yaml:"status"`  // numbers, or 2xx for all of a kind; default 2xx
	Body              string   `yaml:"body"`    // a text that is to be within the first 64 KiB of the body
	CAFile            string   `yaml:"ca_file"` // whose certificates are trusted; default: the system's
}

// HTTP is unfit while a page cannot be had, or is not as it should be. A redirection is
// an answer and is not followed; no proxy is asked.
type HTTP struct {
	c       HTTPConfig
	url     *url.URL
	network string // of Address, or ""
	status  []int  // below 10: the first digit
}

// NewHTTP checks the configuration.
func NewHTTP(c HTTPConfig) (hooks.Monitor, error) {
	var f faults
	m := &HTTP{c: c}
	m.checkURL(&f)
	if c.Address != "" {
		var err error
		m.network, err = parseTarget(c.Address)
		f.add(err != nil, "address: %w", err)
	}
	if m.c.Method == "" {
		m.c.Method = http.MethodGet
	}
	f.add(!slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions}, m.c.Method), "method %q: use GET, HEAD or OPTIONS: a check changes nothing", c.Method)
	f.add(c.Method == http.MethodHead && c.Body != "", "body: the answer to HEAD has none")
	for name, value := range c.Headers {
		f.add(!validHeader(name, value), "headers: %q: not a header, or with more than one line", name)
		f.add(strings.EqualFold(name, "Host"), "headers: Host: use the key host")
		f.add(c.AuthorizationFile != "" && strings.EqualFold(name, "Authorization"), "authorization_file: headers has Authorization, too: keep one of them")
	}
	f.add(!singleLine(c.Host) || strings.ContainsAny(c.Host, " /"), "host %q: the name of a host, without http:// and path", c.Host)
	if c.AuthorizationFile != "" {
		_, err := authorization(c.AuthorizationFile)
		f.add(err != nil, "%w", err)
	}
	checkAuthorities(&f, c.CAFile)
	f.add(c.CAFile != "" && m.url != nil && m.url.Scheme != "https", "ca_file: only with https")
	for _, s := range c.Status {
		n, ok := parseStatus(s)
		f.add(!ok, "status %q: use a number from 100 to 599, or 2xx", s)
		m.status = append(m.status, n)
	}
	if len(m.status) == 0 {
		m.status = []int{2}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *HTTP) checkURL(f *faults) {
	u, err := url.Parse(m.c.URL)
	switch {
	case m.c.URL == "":
		f.add(true, "url: required: such as http://127.0.0.1:8080/health")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		f.add(true, "url: want http://HOST/PATH or https://HOST/PATH") // it may hold a password
	case u.User != nil:
		f.add(true, "url: it holds a name or password, which would be in logs: use authorization_file")
	default:
		m.url = u
	}
}

// authorization reads the header from its file, which nobody else may read.
func authorization(path string) (string, error) {
	line, err := secret.Read(path)
	if err != nil {
		return "", fmt.Errorf("authorization_file: %w", err)
	}
	if strings.ContainsFunc(line, unicode.IsControl) {
		return "", fmt.Errorf("authorization_file: %s: its first line is not that of a header", path)
	}
	return line, nil
}

func validHeader(name, value string) bool {
	return name != "" && !strings.ContainsAny(name, " \t\r\n:\x00") && singleLine(value)
}

func parseStatus(s string) (int, bool) {
	if digit, ok := strings.CutSuffix(s, "xx"); ok {
		n, err := strconv.Atoi(digit)
		return n, err == nil && n >= 1 && n <= 5
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 100 && n <= 599
}

// wanted reports whether a status is one of those.
func wanted(all []int, status int) bool {
	return slices.Contains(all, status) || slices.Contains(all, status/100)
}

// Monitor implements hooks.Monitor. Each look has a connection of its own: one that was
// kept open would not show that no more are taken.
func (m *HTTP) Monitor(ctx context.Context) (hooks.Report, error) {
	request, settings, err := m.prepare(ctx)
	if err != nil {
		return hooks.Report{}, err
	}
	network, target := m.target()
	conn, err := connect(ctx, network, target, settings)
	if err != nil {
		return unfit("%s: %v", m.name(), err)
	}
	defer conn.Close()
	if err := request.Write(conn); err != nil {
		return unfit("%s: %v", m.name(), plain(ctx, err))
	}
	answer, err := read(conn, request)
	if err != nil {
		return unfit("%s: %v", m.name(), plain(ctx, err))
	}
	defer answer.Body.Close()
	if !wanted(m.status, answer.StatusCode) {
		return unfit("%s: status %d", m.name(), answer.StatusCode)
	}
	if m.c.Body != "" {
		body, err := io.ReadAll(io.LimitReader(answer.Body, maxRead))
		switch {
		case bytes.Contains(body, []byte(m.c.Body)):
		case err != nil:
			return unfit("%s: status %d, then %v", m.name(), answer.StatusCode, plain(ctx, err))
		default:
			return unfit("%s: status %d, but without the text that is expected", m.name(), answer.StatusCode)
		}
	}
	return fine("%s: status %d", m.name(), answer.StatusCode)
}

// read reads the answer, after at most maxInformed informational ones, of at most twice
// maxRead in all.
func read(conn net.Conn, request *http.Request) (answer *http.Response, err error) {
	in := bufio.NewReader(io.LimitReader(conn, 2*maxRead))
	for range 1 + maxInformed {
		answer, err = http.ReadResponse(in, request)
		if err != nil || answer.StatusCode >= http.StatusOK || answer.StatusCode == http.StatusSwitchingProtocols {
			break
		}
	}
	return answer, err
}

const maxInformed = 5

// target is where to connect to.
func (m *HTTP) target() (network, address string) {
	if m.network != "" {
		return m.network, m.c.Address
	}
	port := m.url.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[m.url.Scheme]
	}
	return "tcp", net.JoinHostPort(m.url.Hostname(), port)
}

// name names the page, without its query, which may hold a secret.
func (m *HTTP) name() string { return m.url.Scheme + "://" + m.url.Host + m.url.EscapedPath() }

// prepare reads the files and makes the request.
func (m *HTTP) prepare(ctx context.Context) (*http.Request, *tls.Config, error) {
	request, err := http.NewRequestWithContext(ctx, m.c.Method, m.url.String(), nil)
	if err != nil {
		return nil, nil, errors.New("the request cannot be made") // the cause holds the query
	}
	request.Close = true
	request.Header.Set("User-Agent", "carpd")
	for name, value := range m.c.Headers {
		request.Header.Set(name, value)
	}
	if m.c.AuthorizationFile != "" {
		line, err := authorization(m.c.AuthorizationFile)
		if err != nil {
			return nil, nil, err
		}
		request.Header.Set("Authorization", line)
	}
	name := m.url.Hostname()
	if m.c.Host != "" {
		request.Host, name = m.c.Host, m.c.Host
		if host, _, err := net.SplitHostPort(m.c.Host); err == nil {
			name = host
		}
	}
	if m.url.Scheme != "https" {
		return request, nil, nil
	}
	settings, err := tlsConfig(name, m.c.CAFile)
	return request, settings, err
}
