package proxysqlstub

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// server is the worker: what is inside ProxySQL.
type server struct {
	set     settings
	args    arguments
	data    string // the data directory
	started time.Time
	out     io.Writer // the log
	exit    func(code int)

	mu       sync.Mutex // the mutex of the admin module: each statement holds it
	main     *store     // memory, with disk, stats and monitor attached
	stat     *store     // what stats users see
	counted  *store     // the statistics
	mon      *store     // the monitor's
	disk     *store     // the connection that checks the file at the start
	running  bool       // the variables that a restart needs are fixed
	readOnly bool
	sums     map[string]*sum
	sessions map[uint32]*session
	clients  []net.Listener // of the port for clients; none while it is paused
	lastID   uint32
	counts   counters
}

// counters are what stats_mysql_global counts.
type counters struct{ queries, created, refused int }

// Names in the data directory.
const (
	diskName  = "proxysql.db"
	statsName = "proxysql_stats.db"
	pidName   = "proxysql.pid"
	logName   = "proxysql.log"
)

// errUnreadable is a database that this user may not read.
var errUnreadable = errors.New("unable to open the database: permission denied")

func (s *server) log(format string, a ...any) {
	fmt.Fprintf(s.out, "%s %s\n", time.Now().UTC().Format("2006-01-02 15:04:05.000"), fmt.Sprintf(format, a...))
}

// ran logs an error of a statement that nobody is told about.
func (s *server) ran(err error) {
	if err != nil {
		s.log("admin_mysql.cpp: [ERROR] SQLITE CRITICAL error: %v", err)
	}
}

func (s *server) diskPath() string { return filepath.Join(s.data, diskName) }

// open opens all databases and loads disk into memory, and memory into the runtime. An
// error is one that ProxySQL aborts for.
func (s *server) open() error {
	_, missing := os.Stat(s.diskPath())
	if f, err := os.Open(s.diskPath()); errors.Is(err, os.ErrPermission) {
		return errUnreadable
	} else if err == nil {
		_ = f.Close()
	}
	if err := s.openDisk(); err != nil {
		return err
	}
	if err := s.openMemory(); err != nil {
		return err
	}
	if err := s.fillVariables(); err != nil {
		return err
	}
	for _, m := range modules() {
		s.diskToMemory(m)
	}
	if missing != nil || s.args.reload {
		for _, m := range modules() {
			s.args.config.into(s, m)
			s.memoryToDisk(m)
		}
	}
	if err := s.identify(); err != nil {
		return err
	}
	for _, m := range modules() {
		s.memoryToRuntime(m)
	}
	s.running = true
	return nil
}

// openDisk opens the file and makes its tables what this release expects: known older
// texts are brought up to date, others dropped and made anew, without a word.
func (s *server) openDisk() (err error) {
	if s.disk, err = open(s.diskPath(), "mode=rwc"); err != nil {
		return err
	}
	if err := s.disk.exec("PRAGMA synchronous=0"); err != nil {
		return err
	}
	for _, t := range tables(olderSchema) {
		if err := s.upgrade(t); err != nil {
			return err
		}
	}
	for _, t := range tables(diskSchema) {
		r, err := s.disk.do("SELECT 1 FROM sqlite_master WHERE type='table' AND name=" + quote(t.name) + " AND sql=" + quote(t.create))
		switch {
		case err != nil:
			return err
		case len(r.rows) == 1:
			continue
		}
		if err := errors.Join(s.disk.exec("DROP TABLE IF EXISTS %s", t.name), s.disk.exec("%s", t.create)); err != nil {
			return err
		}
	}
	return nil
}

// upgrade renames a table of an older release, makes it anew and copies its rows.
func (s *server) upgrade(t table) error {
	r, err := s.disk.do("SELECT 1 FROM sqlite_master WHERE type='table' AND name=" + quote(t.name) + " AND sql=" + quote(t.create))
	if err != nil || len(r.rows) == 0 {
		return err
	}
	s.log("Detected version older than 2.7.1 of table %s: upgrading", t.name)
	text := ""
	for _, now := range tables(diskSchema) {
		if now.name == t.name {
			text = now.create
		}
	}
	err = errors.Join(s.disk.exec("DROP TABLE IF EXISTS %s", t.old), s.disk.exec("ALTER TABLE %s RENAME TO %s", t.name, t.old), s.disk.exec("%s", text))
	if err != nil {
		return err
	}
	old, err := s.disk.columns(t.old)
	if err != nil {
		return err
	}
	now, err := s.disk.columns(t.name)
	if err != nil {
		return err
	}
	var shared []string
	for _, c := range old {
		if slices.Contains(now, c) {
			shared = append(shared, c)
		}
	}
	list := strings.Join(shared, ", ")
	return s.disk.exec("INSERT INTO %s (%s) SELECT %s FROM %s", t.name, list, list, t.old)
}

// openMemory makes the databases in memory and attaches them to each other.
func (s *server) openMemory() error {
	for _, d := range []struct {
		to     **store
		name   string
		schema string
	}{{&s.main, "mem_admindb", memorySchema}, {&s.counted, "mem_statsdb", statsSchema}, {&s.mon, "mem_monitordb", monitorSchema}, {&s.stat, "mem_viewer", ""}} {
		var err error
		if *d.to, err = open(d.name, memory); err != nil {
			return err
		}
		for _, t := range tables(d.schema) {
			if err := (*d.to).exec("%s", t.create); err != nil {
				return err
			}
		}
	}
	for _, m := range modules() {
		for _, t := range m.tables {
			if err := s.main.exec("CREATE TEMP TABLE %s%s AS SELECT * FROM main.%s", loaded, t, t); err != nil {
				return err
			}
		}
	}
	history := quote(filepath.Join(s.data, statsName))
	return errors.Join(
		s.main.exec("CREATE TEMP TABLE %sglobal_variables AS SELECT * FROM main.global_variables", loaded),
		s.main.exec("CREATE TEMP TABLE %s AS SELECT * FROM main.mysql_servers", configured),
		s.attach(),
		s.main.exec("ATTACH DATABASE 'file:mem_statsdb?%s' AS stats", memory),
		s.main.exec("ATTACH DATABASE 'file:mem_monitordb?%s' AS monitor", memory),
		s.main.exec("ATTACH DATABASE %s AS stats_history", history),
		s.main.exec("CREATE TABLE IF NOT EXISTS stats_history.mysql_connections (timestamp INT NOT NULL , Questions INT NOT NULL , PRIMARY KEY (timestamp))"),
		s.stat.exec("ATTACH DATABASE 'file:mem_statsdb?%s' AS stats", memory),
		s.stat.exec("ATTACH DATABASE 'file:mem_monitordb?%s' AS monitor", memory),
		s.stat.exec("ATTACH DATABASE %s AS stats_history", history),
		s.stat.exec("PRAGMA query_only=ON"),
	)
}

// attach opens the file for the admin port; nothing checks it.
func (s *server) attach() error {
	return errors.Join(s.main.exec("ATTACH DATABASE %s AS disk", quote(s.diskPath())), s.main.exec("PRAGMA disk.synchronous=0"))
}

// reopen is PROXYSQL FLUSH CONFIGDB: what lies there now counts, whatever it is.
func (s *server) reopen() {
	_ = s.disk.conn.Close()
	_ = s.disk.db.Close()
	s.ran(s.main.exec("DETACH DATABASE disk"))
	var err error
	s.disk, err = open(s.diskPath(), "mode=rwc")
	s.ran(err)
	s.ran(s.attach())
}

// fillVariables gives each variable that is not there its default, in memory and on
// disk. It is the first writing to the file, and what damaged pages of global_variables
// are noticed by.
func (s *server) fillVariables() error {
	for _, v := range defaults() {
		values := quote(v.name) + "," + quote(v.value)
		if err := s.main.exec("INSERT OR IGNORE INTO main.global_variables VALUES (%s)", values); err != nil {
			return err
		}
		if err := s.main.exec("INSERT OR IGNORE INTO disk.global_variables VALUES (%s)", values); err != nil {
			return err
		}
	}
	return nil
}

// identify settles who this node is: -U, then the configuration file, then the row.
func (s *server) identify() error {
	id := s.args.uuid
	if id == "" {
		id = s.args.config.uuid
	}
	if id == "" {
		id = s.main.value("SELECT variable_value FROM disk.global_settings WHERE variable_name='uuid'")
	}
	if id == "" {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails
		b[6], b[8] = b[6]&15|64, b[8]&63|128
		id = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	}
	if id == s.main.value("SELECT variable_value FROM disk.global_settings WHERE variable_name='uuid'") {
		return nil
	}
	return s.main.exec("INSERT OR REPLACE INTO disk.global_settings VALUES ('uuid', %s)", quote(id))
}

// columns lists the columns of a table.
func (s *store) columns(table string) (names []string, err error) {
	r, err := s.do("PRAGMA table_info(" + table + ")")
	if err != nil {
		return nil, err
	}
	for _, row := range r.rows {
		names = append(names, "`"+*row[1]+"`")
	}
	return names, nil
}
