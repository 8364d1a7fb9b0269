package systems_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers/blockdev"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

func TestMain(m *testing.M) {
	blockdev.Enter()
	proxysqlstub.Enter()
	lab.Main(m)
}

// soon is what a change of roles may take, with all that follows from it.
const soon = 30 * time.Second

// carpd builds the daemon.
func carpd(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "carpd")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/carpd").CombinedOutput(); err != nil {
		t.Fatalf("build carpd: %v\n%s", err, out)
	}
	return path
}

// program is a command that the system needs; without it the test skips, or fails with
// CARPD_LAB=required.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	hint := name + " is not installed: scripts/bootstrap test, or apt-get install " + pkg
	if os.Getenv("CARPD_LAB") == "required" {
		t.Fatal(hint)
	}
	t.Skip(hint)
	return ""
}

// directory is a new one with a short name, for sockets.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sys")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// machine is a host with a carpd.
type machine struct {
	*lab.Host
	t      *testing.T
	dir    string
	binary string
	proc   *lab.Proc
	client *http.Client
}

func newMachine(t *testing.T, h *lab.Host, binary string) *machine {
	t.Helper()
	m := &machine{Host: h, t: t, dir: directory(t), binary: binary}
	m.client = &http.Client{Timeout: soon, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(m.dir, "sock"))
	}}}
	t.Cleanup(m.client.CloseIdleConnections)
	return m
}

// file writes a file that only its owner may read, and returns its path.
func (m *machine) file(name, text string) string {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// start starts carpd with this configuration, without node, directories and socket, and
// returns when its instances run.
func (m *machine) start(config string) {
	m.t.Helper()
	m.file("carpd.yaml", fmt.Sprintf("node: %s\nstate_dir: %s/state\ncontrol: %s/sock\n%s", m.Name, m.dir, m.dir, config))
	m.restart()
}

// restart starts carpd with the configuration that it had.
func (m *machine) restart() {
	m.t.Helper()
	m.proc = m.Start(exec.Command(m.binary, "run", "--config", filepath.Join(m.dir, "carpd.yaml")))
	m.t.Cleanup(m.KillAll) // before its directory goes
	lab.Eventually(m.t, soon, "carpd on "+m.Name+" answers", func() bool {
		select {
		case <-m.proc.Done():
			m.t.Fatalf("carpd on %s ended: %s", m.Name, m.proc.Output())
		default:
		}
		st, err := m.status()
		return err == nil && len(st.Instances) > 0
	})
}

func (m *machine) status() (st api.Status, err error) {
	answer, err := m.client.Get("http://carpd/v1/status")
	if err != nil {
		return st, err
	}
	defer answer.Body.Close()
	return st, json.NewDecoder(answer.Body).Decode(&st)
}

// instance returns what carpd says of an instance; the zero value if it says nothing.
func (m *machine) instance(name string) api.Instance {
	st, err := m.status()
	if err != nil {
		return api.Instance{}
	}
	for _, i := range st.Instances {
		if i.Name == name {
			return i
		}
	}
	return api.Instance{}
}

// await waits until an instance is in a state, and as MASTER serves.
func (m *machine) await(name, state string) {
	m.t.Helper()
	lab.Eventually(m.t, soon, m.Name+" is "+state+" of "+name, func() bool {
		i := m.instance(name)
		for _, a := range i.Addresses {
			if state == "MASTER" && !a.Present {
				return false
			}
		}
		return i.State == state
	})
}

// hook returns what carpd says of a hook of an instance.
func (m *machine) hook(instance, name string) api.Hook {
	for _, h := range m.instance(instance).Hooks {
		if h.Name == name {
			return h
		}
	}
	return api.Hook{}
}

// handover asks for the role to go to the other node.
func (m *machine) handover(instance string) {
	m.t.Helper()
	m.post("/v1/handover", instance)
}

func (m *machine) post(path, instance string) {
	m.t.Helper()
	answer, err := m.client.Post("http://carpd"+path, "application/json", strings.NewReader(`{"name":"`+instance+`"}`))
	if err != nil {
		m.t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		m.t.Fatalf("%s: %s %s: %s", m.Name, path, instance, answer.Status)
	}
}

// crash is the end of the machine: its cable is out and nothing of it lives.
func (m *machine) crash() {
	m.Unplug()
	m.KillAll()
}
