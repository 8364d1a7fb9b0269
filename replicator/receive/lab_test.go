package receive_test

import (
	"context"
	"database/sql"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/receive"
	"github.com/carpd/carpd/replicator/sqlite"
	"github.com/carpd/carpd/replicator/storetest"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

func TestLabReceive(t *testing.T) {
	b := newBench(t, peers.SSHDOptions{})
	for name, test := range map[string]func(*testing.T, *bench){
		"OnlyWhatDiffersIsSent":               onlyDifferences,
		"ASmallerVersionReplacesNothing":      smaller,
		"WhatIsNotSoundIsNotPublished":        unsound,
		"ABaseThatIsDamagedThereIsNotUsed":    damagedThere,
		"ABaseThatIsDamagedHereIsNotUsed":     damagedHere,
		"ALineThatIsCutAnywhereLeavesTheLast": cutAnywhere,
		"WhatHasArrivedIsNotSentAgain":        resumed,
		"AKilledReceiverLeavesTheLast":        killedReceiver,
		"AKilledSenderLeavesTheLast":          killedSender,
		"AReceiverThatStandsStillIsGivenUp":   silent,
		"TwoThatShipAtOnceAreBothAnswered":    twoAtOnce,
		"ASmallChangeSendsFewBytes":           smallChange,
	} {
		t.Run(name, func(t *testing.T) {
			b.begin(t)
			test(t, b)
		})
	}
}

func onlyDifferences(t *testing.T, b *bench) {
	to := target(t, b.config())
	if _, err := to.Newest(t.Context()); !errors.Is(err, replicator.ErrNotFound) {
		t.Errorf("an empty store: %v, want ErrNotFound", err)
	}
	if sent := b.must(t, to, b.next(t, 0)); sent < size {
		t.Errorf("%d bytes were sent of %d that cannot be compressed", sent, size)
	}
	for range 3 {
		if sent := b.must(t, to, b.next(t, 2)); sent < 2*pageSize || sent > 4*pageSize {
			t.Errorf("%d bytes were sent for 2 pages of %d", sent, pageSize)
		}
	}
	if m, err := to.Newest(t.Context()); err != nil || m.Version.Sequence != b.last {
		t.Errorf("the newest is %v, %v", m.Version, err)
	}
	entries, err := os.ReadDir(b.at)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode().Perm()&0o077 != 0 || info.Sys().(*syscall.Stat_t).Uid != uint32(b.sshd.UID) {
			t.Errorf("%s: %v, %v", e.Name(), info, err)
		}
	}
}

func smaller(t *testing.T, b *bench) {
	to := target(t, b.config())
	old, m := b.next(t, 0), b.next(t, 1)
	b.must(t, to, m)
	if _, err := to.Ship(t.Context(), old, b.own); !errors.Is(err, replicator.ErrOlder) {
		t.Errorf("an older one: %v, want ErrOlder", err)
	}
	if sent, err := to.Ship(t.Context(), m, b.own); err != nil || sent > pageSize {
		t.Errorf("the newest again: %d bytes, %v", sent, err)
	}
	b.newest(t, m)
}

func unsound(t *testing.T, b *bench) {
	to := target(t, b.config())
	good := b.database(t, sample(t, "proxysql.db"))
	b.must(t, to, good)
	for name, reason := range map[string]replicator.Reason{
		"damaged/users-empty.db": replicator.Emptied, "damaged/users-page-garbage.db": replicator.Integrity, "schema-other/spelling-differs.db": replicator.CreateText} {
		bad := b.database(t, sample(t, name))
		if _, err := to.Ship(t.Context(), bad, b.own); !errors.Is(err, receive.ErrRefused) || !strings.Contains(err.Error(), string(reason)) {
			t.Errorf("%s: %v, want %v", name, err, reason)
		}
		b.newest(t, good)
	}
	b.must(t, to, b.database(t, sample(t, "proxysql.db"))) // the connection is good for more
}

func damage(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("damage"), 40*pageSize)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func damagedThere(t *testing.T, b *bench) {
	to := target(t, b.config())
	m := b.next(t, 0)
	b.must(t, to, m)
	damage(t, filepath.Join(b.at, dir.NamesOf(m.Version).Data))
	if sent := b.must(t, to, b.next(t, 1)); sent < size {
		t.Errorf("%d bytes were sent, want all of %d", sent, size)
	}
}

func damagedHere(t *testing.T, b *bench) {
	to := target(t, b.config())
	m := b.next(t, 0)
	b.must(t, to, m)
	damage(t, b.own.Path(m.Version))
	b.must(t, to, b.next(t, 1))
}

func cutAnywhere(t *testing.T, b *bench) {
	last := b.next(t, 0)
	b.must(t, target(t, b.config()), last)
	const all = 32*pageSize + 12<<10 // with the handshake and the questions
	arrived := 0
	for i := range *cuts {
		m := b.next(t, 32)
		if _, err := b.once(t, b.cut(int64(i+1)*all/int64(*cuts)), m); err == nil {
			arrived++
		}
		b.newest(t, last, m)
		if _, err := b.once(t, b.config(), m); err != nil {
			t.Fatalf("after cut %d: %v", i, err)
		}
		b.newest(t, m)
		if _, err := open(t, b.at).Prune(t.Context(), replicator.Keep{Count: 2}, time.Now()); err != nil {
			t.Fatal(err)
		}
		last = m
	}
	if arrived == *cuts {
		t.Error("no cut was in time")
	}
}

func resumed(t *testing.T, b *bench) {
	m := b.next(t, 0)
	// Slowly: what sshd has not read yet when the line is cut is lost.
	slow := b.cut(size * 3 / 4)
	slow.Bandwidth = 1 << 20
	if _, err := b.once(t, slow, m); err == nil {
		t.Fatal("the cut was not in time")
	}
	const block = 128 << 10 // of compression: what is less than one is of no use
	if sent, err := b.once(t, b.config(), m); err != nil || sent > size-block+8<<10 {
		t.Errorf("%d bytes were sent, and %d of %d were there: %v", sent, block, size, err)
	}
	b.newest(t, m)
	// What is left of another snapshot is of no use, and in nobody's way.
	m = b.next(t, pages)
	if _, err := b.once(t, b.cut(size/2), m); err == nil {
		t.Fatal("the cut was not in time")
	}
	if _, err := b.once(t, b.config(), b.next(t, pages)); err != nil {
		t.Error(err)
	}
}

// partly waits until something of a snapshot has arrived.
func (b *bench) partly(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if info, err := os.Stat(filepath.Join(b.at, ".incoming")); err == nil && info.Size() > size/8 {
			return
		}
	}
	t.Fatal("nothing arrives")
}

func killedReceiver(t *testing.T, b *bench) {
	c := b.config()
	c.Bandwidth = 256 << 10
	to := target(t, c)
	last := b.next(t, 0)
	b.must(t, target(t, b.config()), last)
	m := b.next(t, pages)
	done := make(chan error, 1)
	go func() {
		_, err := to.Ship(context.Background(), m, b.own)
		done <- err
	}()
	b.partly(t)
	if n := b.sshd.KillSessions(); n == 0 {
		t.Error("nobody was killed")
	}
	if err := <-done; err == nil {
		t.Error("it was shipped to a dead receiver")
	}
	b.newest(t, last)
	b.must(t, to, m)
}

func killedSender(t *testing.T, b *bench) {
	last := b.next(t, 0)
	b.must(t, target(t, b.config()), last)
	m := b.next(t, pages)
	p := b.node.Start(exec.Command("/proc/self/exe", "sender", b.sshd.Address.String(), b.sshd.KeyFile, b.sshd.KnownHosts, filepath.Dir(b.own.Path(m.Version)), b.sshd.User))
	b.partly(t)
	p.Kill()
	b.newest(t, last)
	b.must(t, target(t, b.config()), m)
}

func silent(t *testing.T, b *bench) {
	c := b.config()
	c.Timeout, c.Bandwidth = 2*time.Second, 256<<10
	to := target(t, c)
	last := b.next(t, 0)
	b.must(t, target(t, b.config()), last)
	m := b.next(t, pages)
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		_, err := to.Ship(context.Background(), m, b.own)
		done <- err
	}()
	b.partly(t)
	b.sshd.StopSessions()
	if err := <-done; err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	b.sshd.KillSessions() // it would hold what arrives
	b.newest(t, last)
	b.must(t, to, m)
}

func twoAtOnce(t *testing.T, b *bench) {
	one, two := b.next(t, 0), b.next(t, 3)
	var wait sync.WaitGroup
	for _, m := range []replicator.Manifest{one, two} {
		to := target(t, b.config())
		wait.Go(func() {
			if _, err := to.Ship(context.Background(), m, b.own); err != nil && (m.Version == two.Version || !errors.Is(err, replicator.ErrOlder)) {
				t.Errorf("%v: %v", m.Version, err)
			}
		})
	}
	wait.Wait()
	b.newest(t, two)
}

// smallChange changes a configuration of ProxySQL's as an operator does, and its SAVE,
// and counts what goes over the line.
func smallChange(t *testing.T, b *bench) {
	path := filepath.Join(t.TempDir(), "proxysql.db")
	if err := os.WriteFile(path, sample(t, "proxysql.db"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	to := target(t, b.config())
	take := func() (m replicator.Manifest) {
		t.Helper()
		b.last++
		copied := filepath.Join(t.TempDir(), "copy.db")
		r, err := sqlite.Take(t.Context(), path, copied, sqlite.Options{})
		if err != nil || !r.Sound() {
			t.Fatal(r, err)
		}
		m = r.Manifest()
		m.Version, m.Time = storetest.V(3, 1, b.last), time.Now()
		f, err := os.Open(copied)
		if err == nil {
			err = errors.Join(b.own.Publish(t.Context(), m, f), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	sent := b.must(t, to, take())
	t.Logf("the whole: %d bytes", sent)
	// As ProxySQL saves a module: all rows go, and come again from memory.
	resave := func(table, change string) []string {
		return []string{"CREATE TEMP TABLE memory AS SELECT * FROM " + table, change, "DELETE FROM " + table, "INSERT INTO " + table + " SELECT * FROM memory", "DROP TABLE memory"}
	}
	change := func(name string, statements ...string) (sent, size int64) {
		t.Helper()
		for _, s := range statements {
			if _, err := db.Exec(s); err != nil {
				t.Fatal(name, s, err)
			}
		}
		m := take()
		began := time.Now()
		sent = b.must(t, to, m)
		t.Logf("%s: %d bytes of %d (%.2f %%), %v", name, sent, m.Size, 100*float64(sent)/float64(m.Size), time.Since(began).Round(time.Millisecond))
		return sent, m.Size
	}
	small := func(name string, statements ...string) {
		t.Helper()
		if sent, size := change(name, statements...); sent*20 > size {
			t.Errorf("%s: %d bytes of %d were sent, want less than 5 %%", name, sent, size)
		}
	}
	const user = "'*E6CC90B878B948C35E92B003C792C46C58C4AF40', active, use_ssl, default_hostgroup, default_schema, schema_locked, transaction_persistent, fast_forward, backend, frontend, max_connections, attributes, comment FROM "
	small("a variable", "UPDATE global_variables SET variable_value = '4097' WHERE variable_name = 'mysql-max_connections'")
	small("a user comes", resave("mysql_users", "INSERT INTO memory SELECT 'somebody', "+user+"memory LIMIT 1")...)
	small("a server goes", resave("mysql_servers", "DELETE FROM memory WHERE rowid = 4")...)
	small("a server moves", resave("mysql_servers", "UPDATE memory SET hostgroup_id = 77 WHERE rowid = 1")...)
	change("20000 users come", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "+
		"INSERT INTO mysql_users SELECT 'user' || (i * 7919 % 20011), "+strings.Replace(user, "'*E6CC90B878B948C35E92B003C792C46C58C4AF40'", "'*' || hex(randomblob(20))", 1)+"n, (SELECT * FROM mysql_users LIMIT 1)")
	small("one of 20000 users goes", resave("mysql_users", "DELETE FROM memory WHERE rowid = 10000")...)
	small("one of 20000 users changes", resave("mysql_users", "UPDATE memory SET max_connections = 77 WHERE rowid = 5000")...)
}

func TestLabReceiveAFullDiskLeavesTheLast(t *testing.T) {
	b := newBench(t, peers.SSHDOptions{Disk: 7 * size / 2})
	b.begin(t)
	to := target(t, b.config())
	last := b.next(t, 0)
	b.must(t, to, last)
	m := b.next(t, 1)
	b.must(t, to, m) // the first, this one and what is put together fill it
	bad := b.next(t, pages)
	if _, err := to.Ship(t.Context(), bad, b.own); err == nil || !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		t.Errorf("%v, want that the disk is full", err)
	}
	b.newest(t, m)
	if _, err := open(t, b.at).Prune(t.Context(), replicator.Keep{Count: 1}, time.Now()); err != nil {
		t.Fatal(err)
	}
	b.must(t, to, bad)
}

func TestLabReceiveWithoutACommandIsSaid(t *testing.T) {
	lan := lab.New(t)
	b := &bench{node: lan.Host("a", "192.0.2.1/24")}
	b.sshd = peers.StartSSHD(t, lan.Host("b", "192.0.2.2/24"), netip.MustParseAddr("192.0.2.2"), peers.SSHDOptions{})
	if _, err := target(t, b.config()).Newest(t.Context()); err == nil || !strings.Contains(err.Error(), "authorized_keys") || !strings.Contains(err.Error(), "not found") {
		t.Error(err)
	}
}
