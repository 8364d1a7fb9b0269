package blockdev

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// Exit codes of drbdsetup and drbdadm.
const (
	drbdFailed  = 10
	drbdRefused = 11
	drbdNoData  = 17
)

// drbdadm is the program for changes of role.
func drbdadm(dir string, args []string) int { return drbdProgram(dir, args) }

// drbdsetup is the program for the state.
func drbdsetup(dir string, args []string) int { return drbdProgram(dir, args) }

func drbdProgram(dir string, args []string) int {
	set, err := readSettings(dir)
	if err != nil || len(args) < 2 {
		return say(errors.Join(err, errors.New("usage: drbdadm primary|secondary NAME, drbdsetup status NAME --json")), drbdFailed)
	}
	if code := set.fault("exit-" + args[0]); code != "" {
		n, err := strconv.Atoi(code)
		return say(errors.Join(err, errors.New("as told to fail")), n)
	}
	if d := set.faultTime("hang-" + args[0]); d > 0 {
		<-time.After(d)
	}
	return ask(set, args, drbdFailed)
}

// drbd answers a request: what DRBD's module and its programs do together.
func (d *daemon) drbd(args []string) reply {
	if args[0] == "ping" {
		return reply{}
	}
	if args[1] != d.set.Name {
		return reply{Err: "no such resource\n", Code: drbdFailed}
	}
	switch args[0] {
	case "primary":
		return d.drbdPrimary()
	case "secondary":
		d.mu.Lock()
		device := d.device
		d.mu.Unlock()
		if device != nil && inUse(device.Name()) {
			return reply{Err: "State change failed: (-12) Device is held open by someone\n", Code: drbdRefused}
		}
		return d.drbdBecome("secondary")
	case "status":
		return d.drbdStatus()
	}
	return reply{Err: "usage\n", Code: drbdFailed}
}

func (d *daemon) drbdPrimary() reply {
	_, peerRole := d.drbdPeer()
	switch {
	case d.drbdDisk() != "UpToDate":
		return reply{Err: "State change failed: (-2) Need access to UpToDate data\n", Code: drbdNoData}
	case peerRole == "Primary":
		return reply{Err: "State change failed: (-1) Multiple primaries not allowed by config\n", Code: drbdRefused}
	case d.set.fault("no-quorum") != "":
		return reply{Err: "State change failed: (-31) No quorum\n", Code: drbdRefused}
	}
	return d.drbdBecome("primary")
}

func (d *daemon) drbdBecome(role string) reply {
	if d.set.fault("role-lies") != "" {
		return reply{}
	}
	if err := d.become(role); err != nil {
		return reply{Err: err.Error() + "\n", Code: drbdFailed}
	}
	return reply{}
}

// drbdDisk is the state of the own disk. That of a secondary whose synchronisation was
// not finished stays Inconsistent.
func (d *daemon) drbdDisk() string {
	if state := d.set.fault("disk"); state != "" {
		return state
	}
	role, _, _, _ := d.state()
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	if role == "secondary" && d.r.syncing {
		return "Inconsistent"
	}
	return "UpToDate"
}

// drbdPeer returns the state of the connection, and the role of the other node. Two
// secondaries are not connected here, and ask each other.
func (d *daemon) drbdPeer() (connection, role string) {
	mine, status, _, _ := d.state()
	d.r.mu.Lock()
	split := d.r.split
	d.r.mu.Unlock()
	switch {
	case split:
		return "StandAlone", "Unknown"
	case mine == "primary" && status == complete:
		return "Connected", "Secondary"
	case mine == "secondary" && status == complete:
		return "Connected", "Primary"
	}
	conn, err := net.DialTimeout("tcp", d.set.Remote, time.Second)
	if err != nil {
		return "Connecting", "Unknown"
	}
	defer conn.Close()
	answer, err := newWire(conn, time.Second).ask(message{Kind: "who"})
	switch {
	case err != nil:
		return "Connecting", "Unknown"
	case answer.Kind == "primary":
		return "Connected", "Primary"
	}
	return "Connected", "Secondary"
}

// complete is the status of a connection that stands.
const complete = "complete"

func (d *daemon) drbdStatus() reply {
	role, _, _, dirty := d.state()
	connection, peerRole := d.drbdPeer()
	d.r.mu.Lock()
	syncing := role == "primary" && d.r.syncing
	d.r.mu.Unlock()
	peerDisk, replication := "UpToDate", "Established"
	switch {
	case connection != "Connected":
		peerDisk, replication = "DUnknown", "Off"
	case dirty > 0 || syncing:
		peerDisk, replication = "Inconsistent", "SyncSource"
	}
	title := map[string]string{"primary": "Primary", "secondary": "Secondary", "init": "Unknown"}[role]
	out, err := json.MarshalIndent([]any{map[string]any{
		"name": d.set.Name, "node-id": 0, "role": title, "suspended": false, "suspended-quorum": false, "write-ordering": "flush",
		"devices": []any{map[string]any{"volume": 0, "minor": 0, "disk-state": d.drbdDisk(), "client": false,
			"quorum": d.set.fault("no-quorum") == "", "size": d.set.Size >> 10, "open": false}},
		"connections": []any{map[string]any{"peer-node-id": 1, "name": "other", "connection-state": connection, "congested": false, "peer-role": peerRole,
			"paths": []any{map[string]any{"established": connection == "Connected"}},
			"peer_devices": []any{map[string]any{"volume": 0, "replication-state": replication, "peer-disk-state": peerDisk,
				"out-of-sync": dirty >> 10, "pending": 0, "unacked": 0, "percent-in-sync": 100.0}}}},
	}}, "", "  ")
	if err != nil {
		return reply{Err: err.Error() + "\n", Code: drbdFailed}
	}
	return reply{Out: fmt.Sprintf("%s\n", out)}
}

// answerWho tells the other node this one's role.
func (d *daemon) answerWho(w *wire) {
	role, _, _, _ := d.state()
	if err := w.out.Encode(message{Kind: role}); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
