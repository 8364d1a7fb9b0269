package proxysqlstub

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// settings are those of a node's stand-in, in its directory. Without them the defaults
// hold: they are those of ProxySQL.
type settings struct {
	dir string

	Test      int           // the process of the test: without it the stand-in ends
	Born      string        // when that was started, as the kernel counts
	Admin     string        // where the admin port listens, instead of what the variable says
	Client    string        // likewise, the port for clients
	AdminWait time.Duration // how much later than the port for clients the admin port opens
	AngelWait time.Duration // what the angel waits before the first restart; it doubles
	User      int           // who it runs as, as the unit's User= says; 0: who started it
}

const settingsFile = "stub.json"

// AdminWait is how much later than the port for clients the admin port opens.
const AdminWait = 500 * time.Millisecond

// AngelWait is what the angel waits before it first restarts a worker.
const AngelWait = 2 * time.Second

func readSettings(dir string) settings {
	set := settings{AdminWait: AdminWait, AngelWait: AngelWait}
	if text, err := os.ReadFile(filepath.Join(dir, settingsFile)); err == nil {
		_ = json.Unmarshal(text, &set) // New wrote it
	}
	set.dir = dir
	return set
}

// Faults that a test sets with Node.Fault.
const (
	faultSaveGap     = "save-gap"
	faultUnlocked    = "save-unlocked"
	faultDisk        = "disk"
	faultAdminSlow   = "admin-slow"
	faultAdminMute   = "admin-mute"
	faultAdminLate   = "admin-late"
	faultClientPort  = "client-port"
	faultClientLate  = "client-late"
	faultMonitorLate = "monitor-late"
	faultBackends    = "backends"
	faultCrash       = "crash"
)

// fault returns the value of a fault that is set, "" if it is not.
func (set settings) fault(name string) string {
	text, err := os.ReadFile(filepath.Join(set.dir, "faults", name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// faultTime is a fault whose value is a time; 0 if it is not set.
func (set settings) faultTime(name string) time.Duration {
	d, err := time.ParseDuration(set.fault(name))
	if err != nil {
		return 0
	}
	return d
}

// pause waits for as long as a fault says.
func (s *server) pause(name string) { pass(s.set.faultTime(name)) }

// writeFault sets a fault, or ends it where the value is empty.
func writeFault(dir, name, value string) error {
	path := filepath.Join(dir, "faults", name)
	if value != "" {
		return os.WriteFile(path, []byte(value), 0o644)
	}
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// pass lets time pass.
func pass(d time.Duration) { _ = lab.Pass(context.Background(), d) } // that never ends early
