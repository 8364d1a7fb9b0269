package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// standIn is a D-Bus service with the part of systemd's interface that is used here. It
// has units and jobs, and runs nothing. systemd itself cannot run in these tests.
type standIn struct {
	t       testing.TB
	address string
	daemon  *exec.Cmd
	conn    *godbus.Conn

	mu    sync.Mutex
	units map[string]*unit
	jobs  map[uint32]*job
	last  uint32
	log   []string
}

// unit is one of its units.
type unit struct {
	load, active, sub, result, file string

	takes   time.Duration // how long a job of it takes
	ends    string        // what its next job ends with, if not done
	becomes string        // its state when a job to start it is done, if not active
	limited bool          // it failed too often, and must be reset
}

type job struct {
	id     uint32
	unit   string
	cancel chan struct{}
}

// bus starts a message bus of the test's own with the stand-in on it.
func newStandIn(t testing.TB) *standIn {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Fatal("dbus-daemon is needed: run scripts/bootstrap test")
	}
	dir, err := os.MkdirTemp("", "carpd-bus") // short, for the address of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "bus.conf")
	text := `<busconfig><type>session</type><listen>unix:path=` + dir + `/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &standIn{t: t, address: "unix:path=" + dir + "/bus", units: map[string]*unit{}, jobs: map[uint32]*job{}}
	s.daemon = exec.Command(program, "--config-file="+config, "--nofork", "--nopidfile", "--print-address=1")
	s.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ready, err := s.daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		t.Fatalf("dbus-daemon says nothing: %v", err)
	}
	if s.conn, err = godbus.Connect(s.address); err != nil {
		t.Fatal(err)
	}
	if err := s.conn.Export(managerOf{s}, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.conn.RequestName("org.freedesktop.systemd1", godbus.NameFlagDoNotQueue); err != nil || got != godbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("request name: %v, %v", got, err)
	}
	return s
}

// stop ends the bus; it may be called twice.
func (s *standIn) stop() {
	if s.conn != nil {
		s.conn.Close()
	}
	_ = s.daemon.Process.Kill()
	_ = s.daemon.Wait()
}

// set makes a unit as it is given.
func (s *standIn) set(name string, u unit) {
	s.t.Helper()
	if u.load == "" {
		u.load = "loaded"
	}
	if u.sub == "" {
		u.sub = map[string]string{"active": "running", "inactive": "dead", "failed": "failed"}[u.active]
	}
	s.mu.Lock()
	for _, j := range s.jobs {
		if j.unit == name {
			s.end(j, "")
		}
	}
	s.units[name] = &u
	s.mu.Unlock()
	path := godbus.ObjectPath("/org/freedesktop/systemd1/unit/" + dbus.PathBusEscape(name))
	if err := s.conn.Export(propertiesOf{s, name}, path, "org.freedesktop.DBus.Properties"); err != nil {
		s.t.Fatal(err)
	}
}

func (s *standIn) get(name string) unit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.units[name]
}

// said returns what was asked of it so far, and forgets it.
func (s *standIn) said() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	return log
}

// end takes a job away and tells everybody. The caller holds the lock.
func (s *standIn) end(j *job, result string) {
	if s.jobs[j.id] != j {
		return
	}
	delete(s.jobs, j.id)
	close(j.cancel)
	if result != "" {
		_ = s.conn.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", j.id, pathOf(j.id), j.unit, result)
	}
}

func pathOf(id uint32) godbus.ObjectPath {
	return godbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", id))
}

// run begins a job, as mode replace does: one that waits for the same unit makes room.
func (s *standIn) run(what, name, mode string, after func(*unit)) (godbus.ObjectPath, *godbus.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, what+" "+name)
	u := s.units[name]
	switch {
	case mode != "replace":
		return "", godbus.NewError("org.freedesktop.DBus.Error.InvalidArgs", []any{"mode " + mode})
	case u == nil || u.load == "not-found":
		return "", godbus.NewError("org.freedesktop.systemd1.NoSuchUnit", []any{"Unit " + name + " not found."})
	case u.load == "masked" && what != "stop":
		return "", godbus.NewError("org.freedesktop.systemd1.UnitMasked", []any{"Unit " + name + " is masked."})
	}
	for _, other := range s.jobs {
		if other.unit == name {
			s.end(other, "canceled")
		}
	}
	s.last++
	j := &job{id: s.last, unit: name, cancel: make(chan struct{})}
	s.jobs[j.id] = j
	wait := time.NewTimer(u.takes)
	go func() {
		select {
		case <-j.cancel:
			wait.Stop()
			return
		case <-wait.C:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.jobs[j.id] != j {
			return
		}
		result := "done"
		if u.ends != "" {
			result, u.ends = u.ends, ""
		} else {
			after(u)
		}
		s.end(j, result)
	}()
	return pathOf(j.id), nil
}

func started(u *unit) {
	switch {
	case u.limited:
		u.active, u.sub, u.result = "failed", "failed", "start-limit-hit"
	case u.becomes != "":
		u.active, u.sub, u.result = u.becomes, "", "exit-code"
	default:
		u.active, u.sub, u.result = "active", "running", "success"
	}
}

func stopped(u *unit) { u.active, u.sub = "inactive", "dead" }

// managerOf has the methods of org.freedesktop.systemd1.Manager.
type managerOf struct{ s *standIn }

func (m managerOf) StartUnit(name, mode string) (godbus.ObjectPath, *godbus.Error) {
	return m.s.run("start", name, mode, started)
}

func (m managerOf) StopUnit(name, mode string) (godbus.ObjectPath, *godbus.Error) {
	return m.s.run("stop", name, mode, stopped)
}

func (m managerOf) RestartUnit(name, mode string) (godbus.ObjectPath, *godbus.Error) {
	return m.s.run("restart", name, mode, started)
}

func (m managerOf) ReloadUnit(name, mode string) (godbus.ObjectPath, *godbus.Error) {
	return m.s.run("reload", name, mode, func(*unit) {})
}

func (m managerOf) ReloadOrRestartUnit(name, mode string) (godbus.ObjectPath, *godbus.Error) {
	return m.s.run("reload-or-restart", name, mode, started)
}

func (m managerOf) TryRestartUnit(name, mode string) (godbus.ObjectPath, *godbus.Error) {
	return m.s.run("try-restart", name, mode, func(*unit) {})
}

func (m managerOf) ResetFailedUnit(name string) *godbus.Error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.s.log = append(m.s.log, "reset "+name)
	if u := m.s.units[name]; u.active == "failed" {
		u.active, u.sub, u.result, u.limited = "inactive", "dead", "success", false
	}
	return nil
}

func (m managerOf) CancelJob(id uint32) *godbus.Error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.s.log = append(m.s.log, "cancel")
	j := m.s.jobs[id]
	if j == nil {
		return godbus.NewError("org.freedesktop.systemd1.NoSuchJob", []any{fmt.Sprintf("Job %d does not exist.", id)})
	}
	m.s.end(j, "canceled")
	return nil
}

// propertiesOf has the properties of a unit.
type propertiesOf struct {
	s    *standIn
	name string
}

func (p propertiesOf) GetAll(string) (map[string]godbus.Variant, *godbus.Error) {
	u := p.s.get(p.name)
	all := map[string]godbus.Variant{}
	for key, value := range map[string]string{
		"LoadState": u.load, "ActiveState": u.active, "SubState": u.sub, "Result": u.result, "UnitFileState": u.file,
	} {
		all[key] = godbus.MakeVariant(value)
	}
	return all, nil
}
