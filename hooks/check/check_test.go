package check_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/check"
	"github.com/carpd/carpd/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

const soon = 10 * time.Second

// opened returns the monitor that a constructor has made.
func opened(t *testing.T, m hooks.Monitor, err error) hooks.Monitor {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// says looks and compares: the health, and words that are to be in the text or error.
func says(t *testing.T, m hooks.Monitor, want hooks.Health, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	r, err := m.Monitor(ctx)
	if err != nil || r.Health != want || !strings.Contains(r.Text, words) {
		t.Errorf("%+v, %v: want %v and %q", r, err, want, words)
	}
}

// blind looks, and wants an error with these words.
func blind(t *testing.T, m hooks.Monitor, words string) {
	t.Helper()
	if r, err := m.Monitor(t.Context()); err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("%+v, %v: want an error with %q", r, err, words)
	}
}

// awake runs Wake, within do, and returns what counts the looks that it asks for.
func awake(t *testing.T, m hooks.Monitor, do func(func()) error) (looks func() int) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var mu sync.Mutex
	n := 0
	var ended sync.WaitGroup
	ended.Go(func() {
		err := do(func() {
			m.(hooks.Waker).Wake(ctx, func() {
				mu.Lock()
				defer mu.Unlock()
				n++
			})
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); ended.Wait() })
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBadSettingsAreRefusedAllAtOnceWithAHint(t *testing.T) {
	number := func(n int) *int { return &n }
	for _, c := range []struct {
		open func() (hooks.Monitor, error)
		want []string // each is in the error
	}{
		{func() (hooks.Monitor, error) { return check.NewInterface(check.InterfaceConfig{}) }, []string{"interface: required"}},
		{func() (hooks.Monitor, error) {
			return check.NewInterface(check.InterfaceConfig{Interface: "far-too-long-a-name", Addresses: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}})
		}, []string{"at most 15 bytes", "without a zone"}},
		{func() (hooks.Monitor, error) { return check.NewRoute(check.RouteConfig{}) }, []string{"destination: required"}},
		{func() (hooks.Monitor, error) {
			return check.NewRoute(check.RouteConfig{Destination: "192.0.2.1/24", Interface: "a/b"})
		}, []string{"write 192.0.2.0/24", "interface \"a/b\""}},
		{func() (hooks.Monitor, error) { return check.NewRoute(check.RouteConfig{Destination: "example.org"}) }, []string{"neither an address nor a prefix"}},
		{func() (hooks.Monitor, error) {
			return check.NewRoute(check.RouteConfig{Destination: "2001:db8::1", Gateway: netip.MustParseAddr("192.0.2.1"), Table: 7})
		}, []string{"not of the family", "table: only for a prefix"}},
		{func() (hooks.Monitor, error) { return check.NewProcess(check.ProcessConfig{}) }, []string{"give pidfile, unit, name or pid"}},
		{func() (hooks.Monitor, error) {
			return check.NewProcess(check.ProcessConfig{Pidfile: "run/x.pid", Unit: "haproxy", PID: -1})
		}, []string{"give one of", "absolute path", "haproxy.service", "pid -1"}},
		{func() (hooks.Monitor, error) { return check.NewProcess(check.ProcessConfig{Name: "/usr/sbin/x"}) }, []string{"without its path"}},
		{func() (hooks.Monitor, error) { return check.NewFile(check.FileConfig{}) }, []string{"path: required"}},
		{func() (hooks.Monitor, error) {
			return check.NewFile(check.FileConfig{Path: "/x", Want: "gone", MaxAge: -1})
		}, []string{"present, absent or number", "max_age"}},
		{func() (hooks.Monitor, error) {
			return check.NewFile(check.FileConfig{Path: "/x", Want: check.Absent, MaxAge: 1, Weight: number(255)})
		}, []string{"has no age", "only with want: number", "-254 to 254"}},
		{func() (hooks.Monitor, error) { return check.NewTCP(check.TCPConfig{}) }, []string{"address", "host:port"}},
		{func() (hooks.Monitor, error) {
			return check.NewTCP(check.TCPConfig{Address: "192.0.2.1:http", Send: "x", SendFile: "y", CAFile: "/etc/absent.pem", ServerName: "x"})
		}, []string{"port is a number", "keep one", "use an absolute path", "only with tls", "absent.pem"}},
		{func() (hooks.Monitor, error) { return check.NewTCP(check.TCPConfig{Address: "/run/x", TLS: true}) }, []string{"server_name: required"}},
		{func() (hooks.Monitor, error) { return check.NewTCP(check.TCPConfig{Address: ":80"}) }, []string{"host is missing"}},
		{func() (hooks.Monitor, error) { return check.NewHTTP(check.HTTPConfig{}) }, []string{"url: required"}},
		{func() (hooks.Monitor, error) { return check.NewHTTP(check.HTTPConfig{URL: "ftp://x/"}) }, []string{"http://HOST/PATH"}},
		{func() (hooks.Monitor, error) {
			return check.NewHTTP(check.HTTPConfig{URL: "http://x/", Method: "POST", Host: "http://y", Status: []string{"200", "6xx", "ok"}, Address: "y",
				Headers: map[string]string{"Host": "z", "a b": "c", "X": "a\nb", "authorization": "d"}, AuthorizationFile: "e"})
		}, []string{"GET, HEAD or OPTIONS", "without http://", `status "6xx"`, `status "ok"`, "address:", "use the key host", `"a b"`, `"X"`, "has Authorization, too", "use an absolute path"}},
		{func() (hooks.Monitor, error) {
			return check.NewHTTP(check.HTTPConfig{URL: "http://x/", Method: "HEAD", Body: "x"})
		}, []string{"body"}},
	} {
		_, err := c.open()
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("the error %q does not say %q", err, want)
			}
		}
	}
}

func TestPasswordInAURLIsRefusedWithoutBeingShown(t *testing.T) {
	for _, url := range []string{"http://carpd:topsecret@192.0.2.1/", "http://carpd:topsecret@192.0.2.1:bad/", "://topsecret"} {
		_, err := check.NewHTTP(check.HTTPConfig{URL: url})
		if err == nil || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%v", err)
		}
	}
}

func TestFileIsThereOrNot(t *testing.T) {
	path := file(t, "flag", "")
	of := func(want check.FileWish) hooks.Monitor {
		m, err := check.NewFile(check.FileConfig{Path: path, Want: want})
		return opened(t, m, err)
	}
	present, absent := of(""), of(check.Absent)
	says(t, present, hooks.Healthy, "is there")
	says(t, absent, hooks.Unfit, "is there")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	says(t, present, hooks.Unfit, "there is no "+path)
	says(t, absent, hooks.Healthy, "there is no")
}

func TestFileIsFresh(t *testing.T) {
	path := file(t, "beat", "")
	m, err := check.NewFile(check.FileConfig{Path: path, MaxAge: time.Minute})
	opened(t, m, err)
	for age, want := range map[time.Duration]hooks.Health{
		0: hooks.Healthy, 50 * time.Second: hooks.Healthy, 61 * time.Second: hooks.Unfit,
		-50 * time.Second: hooks.Healthy, -2 * time.Minute: hooks.Unfit,
	} {
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		says(t, m, want, path)
	}
}

func TestFileSaysAsKeepalivedsTrackFileHowFitTheNodeIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "number")
	for _, c := range []struct {
		text   string
		factor int
		health hooks.Health
		weight int
	}{
		{"0", 1, hooks.Healthy, 0}, {"5\n", 1, hooks.Healthy, 0}, {"-5", 1, hooks.Degraded, 5}, {" -253 \n", 1, hooks.Degraded, 253},
		{"-254", 1, hooks.Unfit, 0}, {"-99999", 1, hooks.Unfit, 0}, {"1", -10, hooks.Degraded, 10}, {"26", -10, hooks.Unfit, 0},
		{"-1", -10, hooks.Healthy, 0}, {"0", 0, hooks.Healthy, 0}, {"1", 0, hooks.Unfit, 0}, {"-1", 0, hooks.Unfit, 0}, {"99999", 1, hooks.Healthy, 0},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := check.NewFile(check.FileConfig{Path: path, Want: check.Number, Weight: &c.factor})
		r, err := opened(t, m, err).Monitor(t.Context())
		if err != nil || r.Health != c.health || r.Weight != c.weight {
			t.Errorf("%q times %d: %+v, %v; want %v by %d", c.text, c.factor, r, err, c.health, c.weight)
		}
	}
}

func TestFileThatCannotBeReadIsNoHealthyOne(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"empty":         func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"text":          func(path string) error { return os.WriteFile(path, []byte("down"), 0o600) },
		"long":          func(path string) error { return os.WriteFile(path, []byte(strings.Repeat(" ", 1<<17)+"1"), 0o600) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":          mkfifo,
		"link to never": func(path string) error { return os.Symlink(path, path) },
	} {
		path := filepath.Join(t.TempDir(), "number")
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		m, err := check.NewFile(check.FileConfig{Path: path, Want: check.Number})
		if r, err := opened(t, m, err).Monitor(t.Context()); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// hides checks that nothing of a look shows a secret.
func hides(t *testing.T, secret string, r hooks.Report, err error) {
	t.Helper()
	if strings.Contains(r.Text, secret) || strings.Contains(fmt.Sprint(err), secret) {
		t.Errorf("the secret is shown: %+v, %v", r, err)
	}
}
