package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/mysql"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/mariadb"
)

func TestMain(m *testing.M) { lab.Main(m) }

// node is a server and what its carpd would make of it.
type node struct {
	*mariadb.Server
	name        string
	log         *notes
	runner      *hooks.Runner
	journal     *hooks.Journal
	journalPath string
	epoch       carp.Epoch
	last        string // GTID after the last insert
}

// site is some nodes on a network, and a client.
type site struct {
	t      *testing.T
	lan    *lab.LAN
	kit    *mariadb.Kit
	client *lab.Host
	nodes  []*node
}

// newSite starts servers: the first is the primary, the others are its replicas.
func newSite(t *testing.T, kit *mariadb.Kit, n int, set func(i int, c *mysql.Config)) *site {
	t.Helper()
	return newSiteWith(t, kit, n, nil, set)
}

// newSiteWith is newSite of servers with settings of their own.
func newSiteWith(t *testing.T, kit *mariadb.Kit, n int, settings func(i int) []string, set func(i int, c *mysql.Config)) *site {
	t.Helper()
	s := &site{t: t, lan: lab.New(t), kit: kit}
	s.client = s.lan.Host("client", "192.0.2.100/24")
	var started sync.WaitGroup
	for i := range n {
		h := s.lan.Host(fmt.Sprintf("db%d", i+1), fmt.Sprintf("192.0.2.%d/24", i+1))
		o := mariadb.Options{ID: i + 1, Settings: []string{"--read-only=1"}}
		if settings != nil {
			o.Settings = append(o.Settings, settings(i)...)
		}
		server := kit.New(t, h, o)
		s.nodes = append(s.nodes, &node{Server: server, name: h.Name, log: &notes{t: t, name: h.Name},
			journalPath: filepath.Join(t.TempDir(), "journal"), epoch: 40})
		started.Go(server.Restart)
	}
	started.Wait()
	for i, nd := range s.nodes {
		nd.start(t, func() *mysql.DB { return s.open(i, set) })
		if i > 0 {
			nd.Replicate(s.nodes[0].Server)
			if settings != nil {
				nd.Exec("STOP SLAVE", "CHANGE MASTER TO MASTER_SSL = 1", "START SLAVE")
			}
		}
	}
	s.nodes[0].Exec("SET GLOBAL read_only = 0", "CREATE TABLE test.t (id INT PRIMARY KEY, v VARCHAR(40)) ENGINE=InnoDB")
	for _, nd := range s.nodes[1:] {
		nd.CatchUp(s.nodes[0].Server)
	}
	return s
}

func (s *site) open(i int, set func(i int, c *mysql.Config)) *mysql.DB {
	s.t.Helper()
	c := mysql.Config{
		Socket: s.nodes[i].Socket, Address: s.nodes[i].Address.String(),
		User: mariadb.Admin, PasswordFile: secret(s.t, mariadb.AdminPassword),
		ReplicationUser: mariadb.Replica, ReplicationPasswordFile: secret(s.t, mariadb.ReplicaPassword),
		PeerTimeout: 2 * time.Second,
	}
	for j, other := range s.nodes {
		if j != i {
			c.Peers = append(c.Peers, other.Address.String())
		}
	}
	if set != nil {
		set(i, &c)
	}
	db, err := mysql.OpenFrom(c, mariadb.Dialer(s.nodes[i].Host))
	if err != nil {
		s.t.Fatal(err)
	}
	return db
}

func secret(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// start makes the runner of the node's carpd, with the journal that it had before.
func (nd *node) start(t *testing.T, open func() *mysql.DB) {
	t.Helper()
	if nd.journal != nil {
		must(t, nd.journal.Close())
	}
	var err error
	nd.journal, err = hooks.OpenJournal(nd.journalPath, "boot")
	must(t, err)
	journal := nd.journal
	t.Cleanup(func() { _ = journal.Close() }) // a second time perhaps
	steps := []hooks.Step{{Name: "db", Kind: "mysql", Resource: open(), Timeout: 30 * time.Second, Watch: hooks.Watch{Interval: time.Second}}}
	for phase, name := range map[hooks.Phase]string{hooks.AfterDown: "follow", hooks.AfterUp: "lead"} {
		steps = append(steps, hooks.Step{Name: name, Kind: "mysql", Hook: open(), Phase: phase, Timeout: 15 * time.Second, OnFailure: map[hooks.Phase]hooks.Policy{hooks.AfterDown: hooks.Alarm, hooks.AfterUp: hooks.Demote}[phase]})
	}
	nd.runner, err = hooks.NewRunner(steps, hooks.Options{Log: slog.New(nd.log), Journal: journal})
	must(t, err)
}

// promote does what carpd does when it takes the role, up to the addresses.
func (nd *node) promote(ctx context.Context, reason carp.Reason) error {
	nd.epoch++
	return nd.runner.Run(ctx, hooks.BeforeUp, hooks.Event{Name: "1@eth0", Node: nd.name, Reason: reason, Epoch: nd.epoch})
}

// attempt is one call of a promotion, which a Runner would try again.
func (nd *node) attempt(t *testing.T, db *mysql.DB) error {
	t.Helper()
	return db.Promote(t.Context(), hooks.Event{Name: "1@eth0", Node: nd.name, Reason: carp.ReasonTimedOut, Epoch: nd.epoch + 1})
}

func (nd *node) demote(ctx context.Context) error {
	return nd.runner.Demote(ctx, hooks.Event{Name: "1@eth0", Node: nd.name, Epoch: nd.epoch})
}

// follow is what is done when the role is gone, lead when the addresses are up.
func (nd *node) follow(ctx context.Context) error {
	return nd.runner.Run(ctx, hooks.AfterDown, hooks.Event{Name: "1@eth0", Node: nd.name})
}

func (nd *node) lead(ctx context.Context) error {
	return nd.runner.Run(ctx, hooks.AfterUp, hooks.Event{Name: "1@eth0", Node: nd.name})
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// look asks the resource once, as Settle does of one that is demoted.
func (nd *node) look(t *testing.T) (hooks.Report, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	was := nd.status().Seen
	var watched sync.WaitGroup
	watched.Go(func() { nd.runner.Watch(ctx) })
	lab.Eventually(t, 10*time.Second, "a look", func() bool { return nd.status().Seen.After(was) })
	cancel()
	watched.Wait()
	st := nd.status()
	if st.Blind != "" {
		return st.Report, errors.New(st.Blind)
	}
	return st.Report, nil
}

func (nd *node) status() hooks.StepStatus { return nd.runner.Status()[0] }

// wantRole asks Monitor, and the server itself.
func wantRole(t *testing.T, nd *node, role hooks.Role, health hooks.Health) hooks.Report {
	t.Helper()
	r, err := nd.look(t)
	if err != nil || r.Role != role || r.Health != health {
		t.Errorf("%s is %v, %v: %s, %v; want %v, %v", nd.name, r.Role, r.Health, r.Text, err, role, health)
	}
	writable := nd.Value("SELECT @@GLOBAL.read_only") == "0"
	if writable != (role == hooks.RolePromoted) {
		t.Errorf("%s says it is %v, and whether it can be written to is %v", nd.name, r.Role, writable)
	}
	return r
}

func (nd *node) rows(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(nd.Value("SELECT COUNT(*) FROM test.t"))
	must(t, err)
	return n
}

// notes keeps what was logged, and shows it with the test.
type notes struct {
	t    *testing.T
	name string
	mu   sync.Mutex
	all  []string
}

func (n *notes) Enabled(context.Context, slog.Level) bool { return true }
func (n *notes) WithAttrs([]slog.Attr) slog.Handler       { return n }
func (n *notes) WithGroup(string) slog.Handler            { return n }

func (n *notes) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	n.mu.Lock()
	n.all = append(n.all, line)
	n.mu.Unlock()
	n.t.Logf("%s: %s", n.name, line)
	return nil
}

// writer inserts rows, one a transaction, and knows which were acknowledged.
type writer struct {
	t     *testing.T
	first int
	stop  chan struct{}
	ended sync.WaitGroup

	mu    sync.Mutex
	acked []int
}

// write starts a writer against the address that at returns at the moment.
func (s *site) write(t *testing.T, first int, at func() *node) *writer {
	w := &writer{t: t, first: first, stop: make(chan struct{})}
	w.ended.Go(func() {
		var db *sql.DB
		var to *node
		defer func() {
			if db != nil {
				_ = db.Close()
			}
		}()
		for id := first; ; id++ {
			select {
			case <-w.stop:
				return
			default:
			}
			if now := at(); now != to {
				if db != nil {
					_ = db.Close()
				}
				to, db = now, now.Client(s.client, now.Address)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			_, err := db.ExecContext(ctx, "INSERT INTO t VALUES (?, 'w')", id)
			cancel()
			if err == nil {
				w.mu.Lock()
				w.acked = append(w.acked, id)
				w.mu.Unlock()
			}
		}
	})
	t.Cleanup(w.end)
	return w
}

// count is how many were acknowledged.
func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// more waits until another n were acknowledged.
func (w *writer) more(n int) {
	w.t.Helper()
	from := w.count()
	lab.Eventually(w.t, 20*time.Second, "writes go on", func() bool { return w.count() >= from+n })
}

func (w *writer) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.ended.Wait()
}

// missing returns which acknowledged rows a server has not.
func (w *writer) missing(nd *node) []int {
	w.t.Helper()
	w.mu.Lock()
	all := slices.Clone(w.acked) // before the server is asked: the client goes on
	w.mu.Unlock()
	db := nd.Root()
	defer func() { _ = db.Close() }()
	return mariadb.Missing(w.t, db, all)
}
