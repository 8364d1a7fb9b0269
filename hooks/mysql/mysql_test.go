package mysql_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/mysql"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/mariadb"
)

// The tests have servers of their own each, from one data directory.
func TestLabMariaDB(t *testing.T) {
	kit := mariadb.Prepare(t)
	for _, tc := range []struct {
		name string
		run  func(*testing.T, *mariadb.Kit)
	}{
		{"a planned switch loses nothing that was acknowledged", plannedSwitch},
		{"a crash loses what was never replicated and the old primary names it", crash},
		{"what was received and not applied is kept", receivedIsKept},
		{"what was received is kept over a promotion that gave up", keptOverRetreat},
		{"both threads stopped is told before it loses anything", bothStopped},
		{"an errant transaction keeps the old primary out", errantPrimary},
		{"an errant transaction keeps a replica from the role", errantReplica},
		{"read_only is bounded by locks, statements and transactions", boundedReadOnly},
		{"an old primary that lives is fenced", fenced},
		{"an old primary that hangs is not waited for", frozen},
		{"of two replicas the one that has more is promoted", threeNodes},
		{"a server without a source asks its peers first", withoutSource},
		{"events and semi-synchronous replication follow the role", switches},
		{"with TLS nobody is believed without a certificate", withTLS},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.run(t, kit) })
	}
}

func plannedSwitch(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 2, nil)
	a, b := s.nodes[0], s.nodes[1]
	wantRole(t, a, hooks.RolePromoted, hooks.Healthy)
	wantRole(t, b, hooks.RoleDemoted, hooks.Healthy)
	must(t, a.promote(t.Context(), carp.ReasonTimedOut)) // it was there before its carpd
	var active atomic.Pointer[node]
	active.Store(a)
	w := s.write(t, 1000, active.Load)
	w.more(200)
	for _, turn := range [][2]*node{{a, b}, {b, a}, {a, b}} {
		from, to := turn[0], turn[1]
		// read_only alone would let this one be committed after the switch.
		admin := from.Root()
		tx, err := admin.Begin()
		must(t, err)
		_, err = tx.Exec("INSERT INTO test.t VALUES (0, 'by an administrator')")
		must(t, err)
		began := time.Now()
		must(t, from.demote(t.Context()))
		if err := tx.Commit(); err == nil {
			t.Error("an administrator's transaction was committed after the demotion")
		}
		must(t, admin.Close())
		must(t, to.promote(t.Context(), carp.ReasonBowOut))
		active.Store(to)
		w.more(1)
		t.Logf("from %s to %s: %v without writes", from.name, to.name, time.Since(began))
		must(t, from.follow(t.Context()))
		w.more(100)
		wantRole(t, to, hooks.RolePromoted, hooks.Healthy)
		wantRole(t, from, hooks.RoleDemoted, hooks.Healthy)
	}
	w.end()
	if lost := w.missing(b); len(lost) > 0 {
		t.Errorf("%d of %d acknowledged rows are lost: %v", len(lost), w.count(), lost)
	}
	a.CatchUp(b.Server)
	if lost := w.missing(a); len(lost) > 0 {
		t.Errorf("%d rows are not on the replica", len(lost))
	}
}

func crash(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 2, nil)
	a, b := s.nodes[0], s.nodes[1]
	insert(a, 1, 100)
	b.CatchUp(a.Server)
	// Seven transactions that never leave the primary. The replica's carpd sees that.
	b.Exec("STOP SLAVE IO_THREAD")
	insert(a, 101, 7)
	if r, err := b.look(t); err != nil || r.Health != hooks.Degraded {
		t.Errorf("a replica that does not receive is %+v, %v", r, err)
	}
	a.Kill()
	must(t, b.promote(t.Context(), carp.ReasonTimedOut))
	b.log.want(t, "not fenced")
	b.log.want(t, "count=7")
	if n := b.rows(t); n != 100 {
		t.Errorf("the new primary has %d rows, want 100", n)
	}
	insert(b, 201, 3)

	a.Restart()
	err := a.follow(t.Context())
	if err == nil || !strings.Contains(err.Error(), "has 7 transactions that") || !strings.Contains(err.Error(), "0-1-") {
		t.Errorf("the old primary rejoins: %v", err)
	}
	r := wantRole(t, a, hooks.RoleDemoted, hooks.Unfit)
	if !strings.Contains(r.Text, "7 transactions") {
		t.Errorf("it does not say what is wrong: %s", r.Text)
	}
	if got := a.Replication(); got != nil {
		t.Errorf("it is a replica of %s", got["Master_Host"])
	}
	if n := a.rows(t); n != 107 {
		t.Errorf("the old primary has %d rows, want all 107", n)
	}
}

func receivedIsKept(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 2, nil)
	a, b := s.nodes[0], s.nodes[1]
	b.Exec("STOP SLAVE SQL_THREAD")
	insert(a, 1, 1000)
	b.received(t, a)
	a.Kill()
	must(t, b.promote(t.Context(), carp.ReasonTimedOut))
	if n := b.rows(t); n != 1000 {
		t.Errorf("%d of 1000 received rows are kept", n)
	}
	wantRole(t, b, hooks.RolePromoted, hooks.Healthy)
}

func keptOverRetreat(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 2, func(_ int, c *mysql.Config) { c.ApplyTimeout = time.Second })
	a, b := s.nodes[0], s.nodes[1]
	lock := holdLock(t, b)
	insert(a, 1, 200)
	b.received(t, a)
	a.Kill()
	if err := b.promote(t.Context(), carp.ReasonTimedOut); err == nil || !strings.Contains(err.Error(), "200 transactions received and not applied") {
		t.Errorf("promoted without what it received: %v", err)
	}
	must(t, b.demote(t.Context()))
	wantRole(t, b, hooks.RoleDemoted, hooks.Degraded)
	lock()
	must(t, b.promote(t.Context(), carp.ReasonTimedOut))
	if n := b.rows(t); n != 200 {
		t.Errorf("%d of 200 received rows are kept", n)
	}
}

func bothStopped(t *testing.T, kit *mariadb.Kit) {
	policy := mysql.NotSo
	s := newSite(t, kit, 2, func(_ int, c *mysql.Config) { c.OnTimeout = policy })
	a, b := s.nodes[0], s.nodes[1]
	b.Exec("STOP SLAVE SQL_THREAD")
	insert(a, 1, 50)
	b.received(t, a)
	b.Exec("STOP SLAVE IO_THREAD")
	a.Kill()
	err := b.promote(t.Context(), carp.ReasonTimedOut)
	if err == nil || !strings.Contains(err.Error(), "50 transactions received and not applied") {
		t.Errorf("promoted: %v", err)
	}
	if pos := b.Replication()["Gtid_IO_Pos"]; pos != a.last {
		t.Errorf("it refused and lost what it received all the same: %s, want %s", pos, a.last)
	}
	policy = mysql.Promote
	b.start(t, func() *mysql.DB { return s.open(1, func(_ int, c *mysql.Config) { c.OnTimeout = policy }) })
	must(t, b.promote(t.Context(), carp.ReasonTimedOut))
	b.log.want(t, "transactions are lost count=50")
}

func errantPrimary(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 2, nil)
	a, b := s.nodes[0], s.nodes[1]
	insert(a, 1, 10)
	must(t, a.promote(t.Context(), carp.ReasonTimedOut))
	must(t, a.demote(t.Context()))
	must(t, b.promote(t.Context(), carp.ReasonBowOut))
	a.Exec("INSERT INTO test.t VALUES (5000, 'by an administrator')")
	errant := a.Value("SELECT @@GLOBAL.gtid_binlog_pos")
	insert(b, 100, 5) // the same numbers, of another server
	err := a.follow(t.Context())
	if err == nil || !strings.Contains(err.Error(), errant) || !strings.Contains(err.Error(), "mysqlbinlog") {
		t.Errorf("the rejoin is not refused with %s: %v", errant, err)
	}
	wantRole(t, a, hooks.RoleDemoted, hooks.Unfit)
}

func errantReplica(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 2, nil)
	a, b := s.nodes[0], s.nodes[1]
	insert(a, 1, 10)
	b.CatchUp(a.Server)
	b.Exec("INSERT INTO test.t VALUES (5000, 'by an administrator')")
	r := wantRole(t, b, hooks.RoleDemoted, hooks.Unfit)
	if !strings.Contains(r.Text, "errant") {
		t.Errorf("it says %s", r.Text)
	}
	a.Kill()
	if err := b.promote(t.Context(), carp.ReasonTimedOut); err == nil || !strings.Contains(err.Error(), "errant") {
		t.Errorf("promoted: %v", err)
	}
	wantRole(t, b, hooks.RoleDemoted, hooks.Unfit)
}

func boundedReadOnly(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 2, nil)
	a := s.nodes[0]
	insert(a, 1, 10)
	a.Exec("CREATE TABLE test.other (id INT PRIMARY KEY, v INT) ENGINE=InnoDB", "INSERT INTO test.other VALUES (1, 0)")
	holdLock(t, a)
	// A statement that runs for a minute, and an administrator's open transaction.
	slow := a.Client(s.client, a.Address)
	defer func() { _ = slow.Close() }()
	ended := make(chan error, 1)
	go func() {
		_, err := slow.Exec("UPDATE other SET v = SLEEP(60)")
		ended <- err
	}()
	lab.Eventually(t, 5*time.Second, "the statement runs", func() bool {
		return a.Value("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'UPDATE other%'") == "1"
	})
	admin := a.Root()
	defer func() { _ = admin.Close() }()
	tx, err := admin.Begin()
	must(t, err)
	_, err = tx.Exec("INSERT INTO test.other VALUES (2, 2)")
	must(t, err)

	must(t, a.promote(t.Context(), carp.ReasonTimedOut)) // it was there before its carpd
	began := time.Now()
	must(t, a.demote(t.Context()))
	took := time.Since(began)
	t.Logf("read-only after %v", took)
	if took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := tx.Commit(); err == nil {
		t.Error("the administrator's transaction was committed after the demotion")
	}
	if err := <-ended; err == nil {
		t.Error("the statement ended well")
	}
	if got := a.Value("SELECT GROUP_CONCAT(id, '=', v) FROM test.other"); got != "1=0" {
		t.Errorf("after the demotion the table holds %s", got)
	}
	wantRole(t, a, hooks.RoleDemoted, hooks.Healthy)
}

func fenced(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 2, func(_ int, c *mysql.Config) { c.RequireFence = true })
	a, b := s.nodes[0], s.nodes[1]
	w := s.write(t, 1000, func() *node { return a })
	w.more(100)
	b.Exec("STOP SLAVE IO_THREAD")
	w.more(100) // the replica has to fetch these
	// Nobody demotes the old primary: its carpd is dead, its server is not.
	must(t, b.promote(t.Context(), carp.ReasonTimedOut))
	w.end()
	if lost := w.missing(b); len(lost) > 0 {
		t.Errorf("%d of %d acknowledged rows are lost", len(lost), w.count())
	}
	wantRole(t, a, hooks.RoleDemoted, hooks.Unfit) // not a replica yet
	wantRole(t, b, hooks.RolePromoted, hooks.Healthy)
	must(t, a.follow(t.Context()))
	// One that lives and does not let carpd in may be written to by others.
	b.Exec("SET PASSWORD FOR '" + mariadb.Admin + "'@'%' = PASSWORD('changed')") // goes to the replica too
	a.CatchUp(b.Server)
	path := secret(t, "changed")
	again := func() *mysql.DB {
		return s.open(0, func(_ int, c *mysql.Config) { c.PasswordFile, c.RequireFence = path, false })
	}
	a.start(t, again)
	b.Exec("SET STATEMENT sql_log_bin = 0 FOR SET PASSWORD FOR '" + mariadb.Admin + "'@'%' = PASSWORD('third')")
	if err := a.attempt(t, again()); err == nil || !strings.Contains(err.Error(), "Access denied") {
		t.Errorf("promoted beside a primary that lives and does not let carpd in: %v", err)
	}
	wantRole(t, a, hooks.RoleDemoted, hooks.Healthy)
	// With the primary dead it is the policy that decides.
	b.Kill()
	a.start(t, func() *mysql.DB {
		return s.open(0, func(_ int, c *mysql.Config) { c.PasswordFile, c.RequireFence = path, true })
	})
	if err := a.promote(t.Context(), carp.ReasonTimedOut); err == nil || !strings.Contains(err.Error(), "require_fence") {
		t.Errorf("promoted without a fence: %v", err)
	}
}

func frozen(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 2, nil)
	a, b := s.nodes[0], s.nodes[1]
	must(t, a.promote(t.Context(), carp.ReasonTimedOut))
	insert(a, 1, 100)
	b.CatchUp(a.Server)
	a.Signal(syscall.SIGSTOP)
	began := time.Now()
	must(t, b.promote(t.Context(), carp.ReasonTimedOut))
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
	insert(b, 200, 1)
	a.Signal(syscall.SIGCONT)
	must(t, a.demote(t.Context())) // its carpd hears the new master
	wantRole(t, a, hooks.RoleDemoted, hooks.Healthy)
	a.CatchUp(b.Server)
}

func threeNodes(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 3, nil)
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	insert(a, 1, 50)
	b.CatchUp(a.Server)
	b.Exec("STOP SLAVE IO_THREAD")
	insert(a, 51, 25)
	c.CatchUp(a.Server)
	a.Kill()
	if err := b.promote(t.Context(), carp.ReasonTimedOut); err == nil || !strings.Contains(err.Error(), "25 transactions that are not here") {
		t.Errorf("the one that has less is promoted: %v", err)
	}
	must(t, b.demote(t.Context()))
	must(t, c.promote(t.Context(), carp.ReasonTimedOut))
	must(t, c.lead(t.Context()))
	insert(c, 100, 5)
	b.CatchUp(c.Server)
	if n := b.rows(t); n != 80 {
		t.Errorf("the other replica has %d rows, want 80", n)
	}
	wantRole(t, b, hooks.RoleDemoted, hooks.Healthy)
	a.Restart()
	must(t, a.follow(t.Context()))
	a.CatchUp(c.Server)
	if n := a.rows(t); n != 80 {
		t.Errorf("the old primary has %d rows, want 80", n)
	}
	for _, nd := range []*node{a, b} {
		if from := nd.Replication()["Master_Host"]; from != c.Address.Addr().String() {
			t.Errorf("%s replicates from %s", nd.name, from)
		}
	}
}

func withoutSource(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 2, nil)
	a, b := s.nodes[0], s.nodes[1]
	must(t, a.promote(t.Context(), carp.ReasonTimedOut))
	must(t, a.demote(t.Context()))
	// All peers have no more than it has.
	must(t, a.promote(t.Context(), carp.ReasonTimedOut))
	must(t, a.demote(t.Context()))
	// Who should take over dies: the one that let go takes it back.
	b.Kill()
	must(t, a.promote(t.Context(), carp.ReasonBowOut))
	must(t, a.demote(t.Context()))
	b.Restart()
	b.Exec("START SLAVE")
	b.CatchUp(a.Server)
	// A peer has more.
	must(t, b.promote(t.Context(), carp.ReasonBowOut))
	insert(b, 1, 3)
	must(t, b.demote(t.Context()))
	if err := a.promote(t.Context(), carp.ReasonTimedOut); err == nil || !strings.Contains(err.Error(), "3 transactions that are not here") {
		t.Errorf("promoted without what the other one has: %v", err)
	}
	// A peer cannot be asked, and was seen with more.
	b.Kill()
	if err := a.promote(t.Context(), carp.ReasonTimedOut); err == nil || !strings.Contains(err.Error(), "without_source") {
		t.Errorf("promoted, and nobody knows what the other one has: %v", err)
	}
	a.start(t, func() *mysql.DB { return s.open(0, func(_ int, c *mysql.Config) { c.WithoutSource = mysql.Promote }) })
	must(t, a.promote(t.Context(), carp.ReasonTimedOut))
}

func switches(t *testing.T, kit *mariadb.Kit) {
	s := newSite(t, kit, 2, func(_ int, c *mysql.Config) { c.Events, c.SemiSync = true, true })
	a, b := s.nodes[0], s.nodes[1]
	for _, nd := range s.nodes {
		nd.Exec("SET GLOBAL rpl_semi_sync_master_timeout = 500") // while there is no replica
	}
	must(t, a.promote(t.Context(), carp.ReasonTimedOut))
	a.Exec("CREATE DEFINER = 'app'@'%' EVENT test.`odd ``name` ON SCHEDULE EVERY 1 SECOND DO INSERT INTO test.t SELECT COALESCE(MAX(id), 0) + 1, @@server_id FROM test.t")
	b.CatchUp(a.Server)
	values := func(nd *node) string {
		return nd.Value("SELECT CONCAT_WS(' ', @@GLOBAL.event_scheduler, @@GLOBAL.rpl_semi_sync_master_enabled, @@GLOBAL.rpl_semi_sync_slave_enabled)")
	}
	must(t, a.demote(t.Context()))
	must(t, b.promote(t.Context(), carp.ReasonBowOut))
	must(t, a.follow(t.Context()))
	if got := values(a); got != "OFF OFF ON" {
		t.Errorf("the replica has %s", got)
	}
	if got := values(b); got != "ON ON OFF" {
		t.Errorf("the primary has %s", got)
	}
	if got := b.Value("SELECT CONCAT(STATUS, ' ', DEFINER) FROM information_schema.EVENTS"); got != "ENABLED app@%" {
		t.Errorf("the event is %s", got)
	}
	lab.Eventually(t, 10*time.Second, "the event runs on the new primary", func() bool {
		return b.Value("SELECT COUNT(*) FROM test.t WHERE v = '2'") != "0"
	})
	wantRole(t, a, hooks.RoleDemoted, hooks.Healthy)
}

// insert adds rows, one a transaction.
func insert(nd *node, first, n int) {
	statements := make([]string, n)
	for i := range statements {
		statements[i] = fmt.Sprintf("INSERT INTO test.t VALUES (%d, 'i')", first+i)
	}
	nd.Exec(statements...)
	nd.last = nd.Value("SELECT @@GLOBAL.gtid_binlog_pos")
}

// received waits until a replica has received all of another one, applied or not.
func (nd *node) received(t *testing.T, from *node) {
	t.Helper()
	lab.Eventually(t, 20*time.Second, "all is received", func() bool { return nd.Replication()["Gtid_IO_Pos"] == from.last })
}

// holdLock holds LOCK TABLES ... WRITE of the table until the function is called, or the
// test ends.
func holdLock(t *testing.T, nd *node) (release func()) {
	t.Helper()
	db := nd.Root()
	conn, err := db.Conn(t.Context())
	must(t, err)
	_, err = conn.ExecContext(t.Context(), "LOCK TABLES test.t WRITE")
	must(t, err)
	release = func() { _ = db.Close(); _ = conn.Close() }
	t.Cleanup(release)
	return release
}

// want checks that a line with these words was logged.
func (n *notes) want(t *testing.T, words string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, line := range n.all {
		if strings.Contains(line, words) {
			return
		}
	}
	t.Errorf("%s logged nothing with %q", n.name, words)
}
