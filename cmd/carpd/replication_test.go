package main_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	_ "github.com/carpd/carpd/replicator/sqlite" // the driver
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// ledger is an application on two nodes: a database that a client writes to where the role
// is, and sshd for the snapshots of the other node.
type ledger struct {
	*pair
	t    *testing.T
	sshd map[*node]*peers.SSHD
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{newPair(t), t, map[*node]*peers.SSHD{}}
	for n, address := range map[*node]string{l.a: "192.0.2.1", l.b: "192.0.2.2"} {
		var o peers.SSHDOptions
		if n == l.b { // nothing of carpd's is known to the sshd of a
			o.Command = func(s *peers.SSHD) string {
				return publicProgram(t) + " receive --dir " + filepath.Join(s.Home, "ledger")
			}
		}
		s := peers.StartSSHD(t, n.Host, netip.MustParseAddr(address), o)
		l.sshd[n] = s
		if err := errors.Join(os.Mkdir(l.store(n), 0o700), os.Chown(l.store(n), s.UID, s.UID), os.Mkdir(filepath.Join(n.dir, "app"), 0o700)); err != nil {
			t.Fatal(err)
		}
		for name, script := range map[string]string{"start": "touch $D/running", "stop": "rm -f $D/running", "status": "[ -e $D/running ] || exit 3"} {
			n.file(name, "#!/bin/sh\nD="+n.dir+"\n"+script+"\n", 0o755)
		}
	}
	return l
}

// store is the directory of a node's snapshots; snapshots is what sshd there calls it.
func (l *ledger) store(n *node) string     { return filepath.Join(l.sshd[n].Local, "home", "ledger") }
func (l *ledger) snapshots(n *node) string { return filepath.Join(l.sshd[n].Home, "ledger") }
func (l *ledger) database(n *node) string  { return filepath.Join(n.dir, "app", "ledger.db") }

// settings are those of one node, which ships to the other.
func (l *ledger) settings(n, other *node, id, advskew int) settings {
	s, method := l.sshd[other], "method: receive"
	if other == l.a {
		method = "method: sftp, path: " + l.snapshots(other)
	}
	return settings{
		advskew: advskew,
		top: []string{
			fmt.Sprintf("node_id: %d", id), "listen: 127.0.0.1:9550",
			"replication:", "  - name: ledger", "    store: " + l.store(n),
			fmt.Sprintf("    source: {kind: sqlite, database: %s}", l.database(n)),
			"    alarm_after: 2s", "    peers:",
			fmt.Sprintf("      - {name: %s, address: %s, user: %s, key_file: %s, known_hosts: %s, %s}",
				other.Name, s.Address, s.User, s.KeyFile, s.KnownHosts, method),
		},
		more: []string{
			"hooks:", "  - kind: sqlite", "    name: thing", "    interval: 200ms",
			fmt.Sprintf("    with: {database: %[1]s, store: %[2]s, start: [%[3]s/start], stop: [%[3]s/stop], status: [%[3]s/status], check: [%[3]s/status], file_mode: '0640'}",
				l.database(n), l.store(n), n.dir),
		},
	}
}

// exec writes to the database of a node, as its application would.
func (l *ledger) exec(n *node, statements ...string) {
	l.t.Helper()
	db, err := sql.Open("sqlite3", l.database(n))
	if err != nil {
		l.t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			l.t.Fatalf("%s: %s: %v", n.Name, s, err)
		}
	}
}

// entries is what the database of a node holds.
func (l *ledger) entries(n *node) (all []string) {
	l.t.Helper()
	db, err := sql.Open("sqlite3", l.database(n))
	if err != nil {
		l.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query("SELECT entry FROM ledger ORDER BY entry")
	if err != nil {
		l.t.Fatalf("%s: %v", n.Name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var entry string
		if err := rows.Scan(&entry); err != nil {
			l.t.Fatal(err)
		}
		all = append(all, entry)
	}
	return all
}

// replication is what a node says of it.
func (l *ledger) replication(n *node) api.Replication {
	l.t.Helper()
	all := n.status().Replication
	if len(all) != 1 {
		l.t.Fatalf("%s: %d replications", n.Name, len(all))
	}
	return all[0]
}

// awaitRows waits until a standby has verified a snapshot with so many entries, and
// returns how long that took.
func (l *ledger) awaitRows(n *node, from *node, rows int64) time.Duration {
	l.t.Helper()
	began := time.Now()
	lab.Eventually(l.t, takeover, fmt.Sprintf("%s to have %d entries of %s", n.Name, rows, from.Name), func() bool {
		r := l.replication(n)
		return r.Role == "standby" && r.Newest != nil && r.Newest.Rows["ledger"] == rows && r.Newest.Source == from.Name
	})
	return time.Since(began)
}

// scrape returns the metrics of a node.
func scrape(n *node) string {
	n.t.Helper()
	client := http.Client{Timeout: soon, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = n.DoErr(func() (err error) {
			c, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return c, err
	}}}
	answer, err := client.Get("http://127.0.0.1:9550/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

// shows fails unless the metrics of a node have these lines.
func (n *node) shows(lines ...string) {
	n.t.Helper()
	all := strings.Split(scrape(n), "\n")
	for _, want := range lines {
		if !slices.Contains(all, want) {
			i := slices.IndexFunc(all, func(l string) bool {
				return strings.HasPrefix(l, want[:strings.LastIndexByte(want, ' ')])
			})
			got := "nothing"
			if i >= 0 {
				got = all[i]
			}
			n.t.Errorf("%s: want the metric %s, got %s", n.Name, want, got)
		}
	}
}

// TestReplicationFollowsTheRole ships to b by carpd receive and to a by sftp. It goes through a handover and a death: whoever has the role
// ships what its client writes, and who takes it over has all of it.
func TestReplicationFollowsTheRole(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.exec(l.a, "CREATE TABLE ledger(entry TEXT PRIMARY KEY, password TEXT)", "INSERT INTO ledger VALUES('one', 'hidden')")
	l.elect(l.settings(l.a, l.b, 1, 0), l.settings(l.b, l.a, 2, 100))
	first := l.awaitRows(l.b, l.a, 1)
	l.exec(l.a, "INSERT INTO ledger VALUES('two', 'hidden')")
	second := l.awaitRows(l.b, l.a, 2)
	t.Logf("on the standby and verified: the first snapshot after %v, the change after %v", first, second)

	lab.Eventually(t, takeover, "a to know that b has it", func() bool { r := l.replication(l.a); return r.Peers[0].State == "current" })
	l.a.shows(`carpd_state{name="9@eth0",state="MASTER"} 1`, `carpd_replication_role{replication="ledger",role="master"} 1`,
		`carpd_replication_age_seconds{replication="ledger"} 0`, `carpd_replication_peer_state{peer="b",replication="ledger",state="current"} 1`,
		`carpd_role_mismatch{hook="thing",kind="sqlite",name="9@eth0"} 0`)
	l.b.shows(`carpd_state{name="9@eth0",state="BACKUP"} 1`, `carpd_replication_role{replication="ledger",role="standby"} 1`,
		`carpd_replication_quarantined{replication="ledger"} 0`, `carpd_role_mismatch{hook="thing",kind="sqlite",name="9@eth0"} 0`)

	l.exec(l.a, "INSERT INTO ledger VALUES('last', 'hidden')")
	l.a.post("/v1/handover", api.NameRequest{}, nil) // it waits until that is with b
	l.b.await("MASTER")
	lab.Eventually(t, takeover, "b to be the only one that replicates", func() bool {
		return l.replication(l.a).Role == "standby" && l.replication(l.b).Role == "master"
	})
	if got := l.entries(l.b); !slices.Equal(got, []string{"last", "one", "two"}) {
		t.Fatalf("b took over with %q", got)
	}
	l.exec(l.b, "INSERT INTO ledger VALUES('three', 'hidden')")
	l.awaitRows(l.a, l.b, 4)
	l.post(l.a)

	l.b.proc.Signal(syscall.SIGKILL)
	l.a.await("MASTER")
	if got := l.entries(l.a); !slices.Equal(got, []string{"last", "one", "three", "two"}) {
		t.Errorf("a took over with %q", got)
	}
	if all := l.a.instance().Alarms; slices.ContainsFunc(all, func(a api.Alarm) bool { return strings.HasPrefix(a.Name, "snapshot-older") }) {
		t.Errorf("alarms of a: %+v", all)
	}
	l.compareAndRestore()
	l.alarmWhileThePeerIsGone()
}

// post takes the demotion by the handover back.
func (l *ledger) post(n *node) {
	l.t.Helper()
	n.post("/v1/resume", api.NameRequest{}, nil)
}

// compareAndRestore is what an operator does on the master a.
func (l *ledger) compareAndRestore() {
	l.t.Helper()
	var newest string
	lab.Eventually(l.t, takeover, "a to have its own snapshot", func() bool {
		r := l.replication(l.a)
		if r.Newest != nil {
			newest = r.Newest.Version
		}
		return r.Newest != nil && r.Newest.Source == "a" && r.AgeMS == 0
	})
	l.exec(l.a, "DELETE FROM ledger WHERE entry <> 'one'")
	lab.Eventually(l.t, takeover, "a snapshot of the loss", func() bool { r := l.replication(l.a); return r.Newest.Version > newest && r.AgeMS == 0 })
	out, code := l.a.ctl("snapshots")
	if code != 0 || !strings.Contains(out, "ledger, in "+l.store(l.a)) {
		l.t.Errorf("%d %s", code, out)
	}
	out, code = l.a.ctl("snapshots", "diff", "previous", "newest")
	if code != 0 || !strings.Contains(out, "0 added, 3 removed, 0 changed") || !strings.Contains(out, "- entry='three': password: (not shown)") || strings.Contains(out, "hidden") {
		l.t.Errorf("%d %s", code, out)
	}
	out, code = l.a.ctl("restore", "--dry-run", "ledger", newest)
	if code != 0 || !strings.Contains(out, "would put "+newest) || !strings.Contains(out, "3 added") || len(l.entries(l.a)) != 1 {
		l.t.Errorf("%d %s", code, out)
	}
	before := l.replication(l.a).Newest.Version
	out, code = l.a.ctl("restore", "ledger", newest)
	if code != 0 || !strings.Contains(out, "put "+newest) || len(l.entries(l.a)) != 4 {
		l.t.Errorf("%d %s", code, out)
	}
	lab.Eventually(l.t, takeover, "what was restored to be the newest", func() bool {
		r := l.replication(l.a)
		return r.Newest.Version > before && r.Newest.Rows["ledger"] == 4
	})
	if r := l.a.thing(); r.Role != "promoted" || r.Health != "ok" {
		l.t.Errorf("the resource after the restore: %+v", r)
	}
	if info, err := os.Stat(l.database(l.a)); err != nil || info.Mode().Perm() != 0o640 {
		l.t.Errorf("the database has mode %v, and file_mode is 0640 (%v)", info.Mode(), err)
	}
	held, err := os.Open(l.database(l.a))
	if err != nil {
		l.t.Fatal(err)
	}
	defer held.Close()
	if out, code = l.a.ctl("restore", "ledger", "previous"); code != 1 || !strings.Contains(out, "is open in ") || len(l.entries(l.a)) != 4 {
		l.t.Errorf("a restore while the database is open: %d %s", code, out)
	}
}

// alarmWhileThePeerIsGone has the peer unreachable: b has died with its sshd.
func (l *ledger) alarmWhileThePeerIsGone() {
	l.t.Helper()
	l.b.Run("ip", "link", "set", "eth0", "down")
	l.exec(l.a, "INSERT INTO ledger VALUES('four', '')")
	lab.Eventually(l.t, 2*takeover, "the alarm that b lags", func() bool { return strings.Contains(l.a.alarm("snapshot-lag-ledger"), "b for") })
	if v := metric(l.t, scrape(l.a), `carpd_replication_lag_seconds{peer="b",replication="ledger"}`); v < 2 {
		l.t.Errorf("the lag is %v s", v)
	}
	l.b.Run("ip", "link", "set", "eth0", "up")
	lab.Eventually(l.t, 6*takeover, "the end of the alarm", func() bool { return l.a.alarm("snapshot-lag-ledger") == "" })
}

// metric returns the value of a metric.
func metric(t *testing.T, text, name string) (v float64) {
	t.Helper()
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}
