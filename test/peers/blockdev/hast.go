package blockdev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Exit codes of hastctl, sysexits(3).
const (
	exUsage       = 64
	exUnavailable = 69
	exSoftware    = 70
	exOSErr       = 71
)

// hastctl is the control program.
func hastctl(dir string, args []string) int {
	set, err := readSettings(dir)
	if err != nil {
		return say(err, exOSErr)
	}
	if len(args) >= 2 && args[1] == "-c" && len(args) > 2 {
		args = append(args[:1:1], args[3:]...)
	}
	if len(args) < 2 || set.fault("no-list") != "" && args[0] == "list" {
		fmt.Fprintln(os.Stderr, "usage: hastctl create|role|list|status|dump")
		return exUsage
	}
	if code := set.fault("exit-" + args[0]); code != "" {
		n, err := strconv.Atoi(code)
		return say(errors.Join(err, errors.New("as told to fail")), n)
	}
	if d := set.faultTime("hang-" + args[0]); d > 0 {
		<-time.After(d)
	}
	switch args[0] {
	case "create":
		return say(errors.Join(writeMeta(dir, counters{PrevRole: "init"}), os.Remove(filepath.Join(dir, "disk"))), exUnavailable)
	case "dump":
		m, err := readMeta(dir)
		fmt.Printf("resource: %s\n    datasize: %d (%dMB)\n    extentsize: %d (64KB)\n    keepdirty: 64\n    localoff: 139264 (136KB)\n    resuid: %d\n    localcnt: %d\n    remotecnt: %d\n    prevrole: %s\n",
			set.Name, set.Size, set.Size>>20, extent, m.Resource, m.Local, m.Remote, m.PrevRole)
		return say(err, exUnavailable)
	}
	return ask(set, args, exOSErr)
}

// ask lets the daemon answer.
func ask(set Settings, args []string, unreachable int) int {
	conn, err := net.Dial("unix", set.socket())
	if err != nil {
		fmt.Fprintf(os.Stderr, "[ERROR] Unable to connect to hastd via %s: %v.\n", set.socket(), err)
		return unreachable
	}
	defer conn.Close()
	var a reply
	if err := errors.Join(json.NewEncoder(conn).Encode(request{args}), json.NewDecoder(conn).Decode(&a)); err != nil {
		return say(err, exUnavailable)
	}
	_, _ = io.WriteString(os.Stdout, a.Out)
	_, _ = io.WriteString(os.Stderr, a.Err)
	return a.Code
}

func say(err error, code int) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return code
}

// hast answers a request of hastctl.
func (d *daemon) hast(args []string) reply {
	name := args[len(args)-1]
	if name != d.set.Name && name != "all" {
		return reply{Err: "Resource not found.\n", Code: 1}
	}
	switch args[0] {
	case "ping":
		return reply{}
	case "role":
		if d.set.fault("role-lies") != "" {
			return reply{}
		}
		if err := d.become(args[1]); err != nil {
			return reply{Err: err.Error() + "\n", Code: exSoftware}
		}
		return reply{}
	case "list":
		return reply{Out: d.list()}
	case "status":
		if d.set.fault("no-list") != "" {
			return reply{Out: d.list()}
		}
		return reply{Out: d.table()}
	}
	return reply{Err: "usage\n", Code: exUsage}
}

// state returns what list and status show. d.mu is not held.
func (d *daemon) state() (role, status string, worker int, dirty int64) {
	d.mu.Lock()
	role, worker = d.role, d.worker
	connected := d.conn != nil
	d.mu.Unlock()
	if role == "primary" {
		dirty = d.r.bytesDirty()
		d.r.mu.Lock()
		connected = d.r.peer != nil
		d.r.mu.Unlock()
	}
	if forced, err := strconv.ParseInt(d.set.fault("dirty"), 10, 64); err == nil && role == "primary" {
		dirty = forced
	}
	switch {
	case worker == 0:
	case connected:
		status = complete
	default:
		status = "degraded"
	}
	return role, status, worker, dirty
}

func (d *daemon) list() string {
	role, status, worker, dirty := d.state()
	var b strings.Builder
	fmt.Fprintf(&b, "%s:\n  role: %s\n  provname: %s\n  localpath: %s\n  extentsize: %d (64KB)\n  keepdirty: 0\n  remoteaddr: %s\n  replication: memsync\n",
		d.set.Name, role, d.set.Name, filepath.Join(d.set.Dir, "disk"), extent, d.set.Remote)
	if status != "" {
		fmt.Fprintf(&b, "  status: %s\n", status)
	}
	if worker != 0 {
		fmt.Fprintf(&b, "  workerpid: %d\n", worker)
	}
	fmt.Fprintf(&b, "  dirty: %d (%dKB)\n  statistics:\n    reads: 0\n    writes: 0\n    deletes: 0\n    flushes: 0\n    activemap updates: 0\n    local errors: read: 0, write: 0, delete: 0, flush: 0\n    queues: local: 0, send: 0, recv: 0, done: 0, idle: 255\n", dirty, dirty>>10)
	return b.String()
}

func (d *daemon) table() string {
	role, status, _, _ := d.state()
	if status == "" {
		status = "-"
	}
	return fmt.Sprintf("Name\tStatus\t Role\t\tComponents\n%s\t%-9s%-15s%s\t%s\n", d.set.Name, status, role, filepath.Join(d.set.Dir, "disk"), d.set.Remote)
}
