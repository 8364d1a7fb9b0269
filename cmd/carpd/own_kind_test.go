package main_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// thirdParty is a module of its own with a kind of hook and a main package.
const thirdParty = "../../test/thirdparty"

// TestOwnKindIsBuiltOutsideOfThisModuleAndRuns builds it as its owner does, but
// for the version of carpd, which is this checkout.
func TestOwnKindIsBuiltOutsideOfThisModuleAndRuns(t *testing.T) {
	t.Parallel()
	binary := buildThirdParty(t)
	lan := lab.New(t)
	n := newNode(t, lan, "a", "192.0.2.1/24")
	said := slackOn(t, n.Host)

	if out, err := exec.Command(binary, "kinds").CombinedOutput(); err != nil || !strings.Contains(string(out), "slack") || !strings.Contains(string(out), "exec") {
		t.Errorf("kinds: %v\n%s", err, out)
	}
	with := func(setting string) settings {
		return settings{more: []string{"hooks:", "  - kind: slack", "    on: after-up", "    with: {" + setting + "}"}}
	}
	for setting, want := range map[string]string{`uri: "http://x"`: `did you mean "url"`, "url: ''": "url is required"} {
		n.configure(with(setting))
		if out, err := exec.Command(binary, "check", "--config", n.config()).CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, want %s\n%s", setting, err, want, out)
		}
	}
	n.configure(with(`url: "http://127.0.0.1:8080/hook"`))
	n.startWith(exec.Command(binary, "run", "--config", n.config()))
	n.await("MASTER")
	select {
	case got := <-said:
		if want := `{"text":"9@eth0 is MASTER on a"}`; got != want {
			t.Errorf("posted %s, want %s", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing was posted")
	}
}

// buildThirdParty tests and builds a copy of the module, from what is on this machine.
func buildThirdParty(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	if err := os.CopyFS(dir, os.DirFS(thirdParty)); err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"mod", "edit", "-replace=github.com/carpd/carpd=" + root},
		{"vet", "./..."},
		{"test", "./..."},
		{"build", "-o", "own-carpd", "./cmd/carpd"},
	} {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return filepath.Join(dir, "own-carpd")
}

// slackOn is the service on a host, on its loopback interface.
func slackOn(t *testing.T, h *lab.Host) <-chan string {
	t.Helper()
	var l net.Listener
	err := h.DoErr(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:8080")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 100)
	s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		said <- string(body)
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-ended
	})
	return said
}

func TestPageOfHooksShowsTheOwnKindAsItIs(t *testing.T) {
	page, err := os.ReadFile("../../docs/hooks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"slack.go", "cmd/carpd/main.go"} {
		text, err := os.ReadFile(filepath.Join(thirdParty, name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "```go\n"+string(text)+"```\n") {
			t.Errorf("docs/hooks.md does not show %s of test/thirdparty as it is", name)
		}
	}
}
