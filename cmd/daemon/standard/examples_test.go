package standard_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/carpd/carpd/cmd/daemon/config"
	_ "github.com/carpd/carpd/cmd/daemon/standard"
	"github.com/carpd/carpd/hooks"
)

// example is a fenced block of YAML.
var example = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// instance is what an example of its hooks leaves out.
const instance = "instances:\n  - vhid: 9\n    interface: eth0\n    addresses: [192.0.2.50/24]\n"

// TestExamplesOfTheKindsAreAccepted decodes the examples of docs/hooks into the
// settings of their kinds. What a kind says of files that are not on this machine is let
// pass.
func TestExamplesOfTheKindsAreAccepted(t *testing.T) {
	pages, err := filepath.Glob("../../../docs/hooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("pages %v, %v", pages, err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for i, block := range example.FindAllStringSubmatch(string(text), -1) {
			text := block[1]
			switch {
			case strings.HasPrefix(text, "    hooks:\n"):
				text = instance + text
			case !strings.Contains(text, "instances:\n"):
				continue // a part of one
			}
			found++
			t.Run(fmt.Sprintf("%s/%d", filepath.Base(page), i+1), func(t *testing.T) { accept(t, text) })
		}
		if found == 0 {
			t.Errorf("%s has no example: a block of yaml with instances: or the hooks: of one", page)
		}
	}
}

func accept(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pass"), []byte("a secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`passphrase_file: \S+?([,}\n])`).ReplaceAllString(text, "passphrase_file: "+dir+"/pass$1")
	path := filepath.Join(dir, "carpd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Options{
		Interfaces: func(netip.Addr) ([]string, error) { return []string{"eth0"}, nil },
		Hostname:   func() (string, error) { return "left", nil },
		Kinds:      hooks.Kinds,
		CheckHook:  open,
	}.Load(path)
	if err != nil {
		t.Errorf("%v\n%s", err, text)
	}
}

func open(h config.Hook) error {
	var err error
	switch h.On {
	case "":
		_, err = hooks.OpenResource(h.Kind, h.Decode)
	case config.OnMonitor:
		_, err = hooks.OpenMonitor(h.Kind, h.Decode)
	default:
		_, err = hooks.Open(h.Kind, h.Decode)
	}
	if problems := (config.Problems)(nil); err == nil || errors.As(err, &problems) {
		return err
	}
	for line := range strings.Lines(err.Error()) {
		if !elsewhere(line) {
			return err
		}
	}
	return nil
}

// elsewhere reports whether a fault is that this machine is not the one of the example.
func elsewhere(fault string) bool {
	for _, part := range []string{"does not exist", "no such file", "no such user", "not booted with systemd", "cannot be found"} {
		if strings.Contains(fault, part) {
			return true
		}
	}
	return false
}
