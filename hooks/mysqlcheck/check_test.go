package mysqlcheck

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
)

// script plays a server: it sends the packets, one when the connection opens and one for
// each that it reads.
func script(t *testing.T, packets ...string) io.ReadWriter {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close() })
	go func() {
		defer there.Close()
		for i, p := range packets {
			if i > 0 {
				if _, _, err := read(there); err != nil {
					return
				}
			}
			if _, err := io.WriteString(there, p); err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, there)
	}()
	return here
}

func packet(seq byte, payload string) string {
	var b bytes.Buffer
	_ = write(&b, seq, []byte(payload))
	return b.String()
}

const greeting = "\x0a10.11.19-MariaDB\x00rest"

func TestLoginIsWhatHAProxySees(t *testing.T) {
	for _, c := range []struct {
		name, user string
		packets    []string
		text       string
		fault      string
	}{
		{"welcome", "haproxy", []string{packet(0, greeting), packet(2, "\x00\x00\x00")}, "takes logins", ""},
		{"asked for another method, which HAProxy takes for UP", "haproxy", []string{packet(0, greeting), packet(2, "\xfemysql_native_password\x00")}, "takes logins", ""},
		{"greeting alone", "", []string{packet(0, greeting)}, "10.11.19-MariaDB greets", ""},
		{"too many connections", "haproxy", []string{packet(0, "\xff\x10\x04Too many connections")}, "", "error 1040: Too many connections"},
		{"denied", "haproxy", []string{packet(0, greeting), packet(2, "\xff\x15\x04#28000Access denied")}, "", "error 1045: Access denied"},
		{"another protocol", "haproxy", []string{packet(0, "HTTP/1.1 400")}, "", "protocol 10"},
		{"no packet", "haproxy", []string{"HTTP/1.1 400 Bad Request\r\n"}, "", "no MySQL server"},
		{"empty error", "haproxy", []string{packet(0, "\xff")}, "", "refuses"},
		{"hangs up", "haproxy", []string{packet(0, greeting)[:9]}, "", "read the greeting"},
	} {
		server := script(t, c.packets...)
		if c.name == "hangs up" {
			server = struct {
				io.Reader
				io.Writer
			}{strings.NewReader(c.packets[0]), io.Discard}
		}
		text, err := login(server, c.user)
		switch {
		case c.fault == "" && (err != nil || !strings.Contains(text, c.text)):
			t.Errorf("%s: %q, %v", c.name, text, err)
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%s: %q, %v; want %q", c.name, text, err, c.fault)
		}
	}
}

func TestConfigurationFaultsAreToldAllAtOnce(t *testing.T) {
	for want, c := range map[string]Config{
		"address: required":     {},
		"neither HOST:PORT":     {Address: "server"},
		"user: a query":         {Address: "h:3306", Query: "SELECT 1"},
		"expect, password_file": {Address: "h:3306", User: "u", Expect: "1"},
		"password_file: secret": {Address: "h:3306", User: "u", Query: "SELECT 1", PasswordFile: "pass"},
		"zero byte":             {Address: "h:3306", User: "u\x00"},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}
