package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The limits of replication.
const (
	MaxReplications = 16 // of the file
	MaxTargets      = 32 // peers of one of them
	MaxTables       = 256
)

// The defaults of replication.
const (
	DefaultKeepCount  = 100
	DefaultKeepAge    = 30 * 24 * time.Hour
	DefaultKeepLeast  = 3
	DefaultAlarmAfter = 30 * time.Second
)

// Replication is one database whose snapshots are kept on the nodes of an instance: its
// master takes and ships them, the others verify what comes.
type Replication struct {
	Name     string // unique; that of Source.Kind unless given
	Instance string // name of the instance whose role it follows
	Source   Database
	Store    string // absolute path of the node's own directory of snapshots
	Peers    []Shipping
	Keep     Keeping

	Rows       map[string]int64 // least number of rows by table
	MayBeEmpty []string         // tables that may be
	MaxSize    int64            // bytes of a snapshot; 0: the default of package sqlite
	Bandwidth  int64            // bytes a second to one peer; 0: no bound

	Settle, Latest time.Duration // how long a change waits for others, and at most; 0: the defaults of package replicator
	Sync           *Sync         // modules that are kept equal on many nodes; nil: none
	AlarmAfter     time.Duration // how long a change may be in no snapshot, or a snapshot not with a peer

	Line, Column int // where it begins in the file
}

// The kinds of databases.
const (
	SourceSQLite   = "sqlite"
	SourceProxySQL = "proxysql"
)

// Database is what snapshots are taken of.
type Database struct {
	Kind     string // SourceSQLite or SourceProxySQL
	Database string // absolute path of the file
	Admin    *Admin // of ProxySQL; nil: only its file is looked at
}

// Admin is how ProxySQL's admin interface is reached.
type Admin struct {
	Address      string // HOST:PORT, or the absolute path of a socket
	User         string
	PasswordFile string // absolute
	Exchange     string // absolute: where ProxySQL writes its copies; "": carpd-exchange beside the database
}

// The ways to ship a snapshot.
const (
	MethodReceive = "receive" // carpd receive as forced command
	MethodSFTP    = "sftp"    // a plain sshd
)

// Shipping is another node that snapshots are shipped to.
type Shipping struct {
	Name       string // unique in its replication; Address unless given
	Address    string // HOST or HOST:PORT
	User       string
	KeyFile    string // absolute
	KnownHosts string // absolute
	Method     string // MethodReceive or MethodSFTP
	Path       string // of the peer's store; with MethodReceive its forced command names it
}

// Keeping is which snapshots stay in the own store.
type Keeping struct {
	Count int
	Age   time.Duration // 0: any age
	Least int           // so many sound ones stay whatever Count and Age say
}

// Equal reports whether two entries say the same, wherever they stand in a file.
func (p Replication) Equal(o Replication) bool {
	p.Line, p.Column, o.Line, o.Column = 0, 0, 0, 0
	p.Sync, o.Sync = p.Sync.placeless(), o.Sync.placeless()
	return reflect.DeepEqual(p, o)
}

// replications reads the list.
func (r *reader) replications(n *node, f *File) (at []pos) {
	if n.kind != list {
		r.fault(n.at, "begin each database with \"- \"", "replication: want a list, %s", n.found())
		return nil
	}
	for _, item := range r.list(n, "databases", MaxReplications) {
		f.Replication = append(f.Replication, r.replication(item))
		at = append(at, item.at)
	}
	return at
}

func (r *reader) replication(n *node) Replication {
	p := Replication{
		Keep:       Keeping{DefaultKeepCount, DefaultKeepAge, DefaultKeepLeast},
		AlarmAfter: DefaultAlarmAfter, Line: n.at.line, Column: n.at.column,
	}
	at := r.fields(n, replicationKeys, setters{
		"name":         func(n *node) { r.word(n, 64, &p.Name) },
		"instance":     func(n *node) { r.word(n, 64, &p.Instance) },
		"source":       func(n *node) { r.database(n, &p.Source) },
		"store":        func(n *node) { r.absolute(n, &p.Store) },
		"peers":        func(n *node) { r.shippings(n, &p) },
		"keep":         func(n *node) { r.keep(n, &p.Keep) },
		"rows":         func(n *node) { p.Rows = r.floors(n) },
		"may_be_empty": func(n *node) { p.MayBeEmpty = r.tableNames(n) },
		"max_size":     func(n *node) { r.size(n, 1<<20, 1<<40, &p.MaxSize) },
		"bandwidth":    func(n *node) { r.size(n, 16<<10, 1<<40, &p.Bandwidth) },
		"settle":       func(n *node) { r.duration(n, 10*time.Millisecond, time.Minute, &p.Settle) },
		"latest":       func(n *node) { r.duration(n, 10*time.Millisecond, 10*time.Minute, &p.Latest) },
		"sync":         func(n *node) { p.Sync = r.sync(n) },
		"alarm_after":  func(n *node) { r.duration(n, time.Second, 24*time.Hour, &p.AlarmAfter) },
	})
	if n.kind != mapping {
		return p
	}
	if _, given := at["source"]; !given {
		r.fault(n.at, "write source: {kind: sqlite, database: /path/to/file}", "replication: source is missing")
	}
	if at, given := at["peers"]; p.Sync == nil && (!given || len(p.Peers) == 0) {
		if !given {
			at = n.at
		}
		r.warn(at, "name the other nodes in peers", "replication: there are no peers: snapshots stay on this node")
	}
	if p.Settle > 0 && p.Latest > 0 && p.Latest < p.Settle {
		r.fault(at["latest"], "", "latest: %v is shorter than settle, %v", brief(p.Latest), brief(p.Settle))
	}
	return p
}

func (r *reader) database(n *node, d *Database) {
	at := r.fields(n, databaseKeys, setters{
		"kind":     func(n *node) { r.choice(n, &d.Kind, []string{SourceSQLite, SourceProxySQL}, nil) },
		"database": func(n *node) { r.absolute(n, &d.Database) },
		"admin":    func(n *node) { d.Admin = r.admin(n) },
	})
	if n.kind != mapping {
		return
	}
	for _, key := range []string{"kind", "database"} {
		if _, given := at[key]; !given {
			r.fault(n.at, "", "source: %s is missing", key)
		}
	}
	if at, given := at["admin"]; given && d.Kind == SourceSQLite {
		r.fault(at, "remove the key, or say kind: proxysql", "source: only ProxySQL has an admin interface")
	}
}

func (r *reader) admin(n *node) *Admin {
	a := &Admin{Address: "127.0.0.1:6032"}
	at := r.fields(n, adminKeys, setters{
		"address":       func(n *node) { r.hostPort(n, &a.Address) },
		"user":          func(n *node) { a.User, _ = r.str(n, "the name of an account") },
		"password_file": func(n *node) { r.absolute(n, &a.PasswordFile) },
		"exchange":      func(n *node) { r.absolute(n, &a.Exchange) },
	})
	for _, key := range []string{"user", "password_file"} {
		if _, given := at[key]; !given && n.kind == mapping {
			r.fault(n.at, "", "admin: %s is missing", key)
		}
	}
	return a
}

// hostPort reads HOST:PORT, or the path of a socket.
func (r *reader) hostPort(n *node, into *string) {
	text, ok := r.str(n, "HOST:PORT")
	if !ok {
		return
	}
	if filepath.IsAbs(text) {
		*into = filepath.Clean(text)
		return
	}
	host, port, found := cutLast(text, ":")
	number, err := strconv.Atoi(port)
	if !found || host == "" || err != nil || number < 1 || number > 65535 || strings.ContainsAny(text, " \t/") {
		r.fault(n.at, "write HOST:PORT, like 127.0.0.1:6032", "%s: %q is not a host and port", n.key, text)
		return
	}
	*into = text
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (r *reader) shippings(n *node, p *Replication) {
	if n.kind != list {
		r.fault(n.at, "begin each peer with \"- \"", "peers: want a list, %s", n.found())
		return
	}
	for _, item := range r.list(n, "peers", MaxTargets) {
		s := r.shipping(item)
		if slices.ContainsFunc(p.Peers, func(o Shipping) bool { return o.Name == s.Name && s.Name != "" }) {
			r.fault(item.at, "give each a name of its own", "peers: %s is there twice", s.Name)
		}
		p.Peers = append(p.Peers, s)
	}
}

func (r *reader) shipping(n *node) Shipping {
	s := Shipping{Method: MethodReceive}
	at := r.fields(n, shippingKeys, setters{
		"name":        func(n *node) { r.word(n, 64, &s.Name) },
		"address":     func(n *node) { s.Address, _ = r.str(n, "HOST or HOST:PORT") },
		"user":        func(n *node) { s.User, _ = r.str(n, "the name of an account") },
		"key_file":    func(n *node) { r.absolute(n, &s.KeyFile) },
		"known_hosts": func(n *node) { r.absolute(n, &s.KnownHosts) },
		"method":      func(n *node) { r.choice(n, &s.Method, []string{MethodReceive, MethodSFTP}, nil) },
		"path":        func(n *node) { r.absolute(n, &s.Path) },
	})
	if n.kind != mapping {
		return s
	}
	for _, need := range []struct{ key, hint string }{
		{"address", ""}, {"user", ""}, {"key_file", "make one without a passphrase: ssh-keygen -t ed25519 -N '' -f FILE"},
		{"known_hosts", "write the peer's host key into a file: ssh-keyscan PEER, compared with the key there"},
	} {
		if _, given := at[need.key]; !given {
			r.fault(n.at, need.hint, "peer: %s is missing", need.key)
		}
	}
	path, given := at["path"]
	switch {
	case given && s.Method == MethodReceive:
		r.fault(path, "remove the key, or say method: sftp", "path: with method receive the peer's own command names its directory")
	case !given && s.Method == MethodSFTP:
		r.fault(n.at, "name the directory of the peer", "peer: path is missing")
	}
	if s.Name == "" {
		s.Name = s.Address
	}
	return s
}

func (r *reader) keep(n *node, k *Keeping) {
	whole := func(low int, into *int) func(*node) { return func(n *node) { r.whole(n, low, 10_000, into) } }
	r.fields(n, keepKeys, setters{
		"count": whole(1, &k.Count),
		"least": whole(1, &k.Least),
		"age": func(n *node) {
			if d, ok := r.anyDuration(n); ok && d == 0 {
				k.Age = 0
			} else if ok {
				r.duration(n, time.Minute, 10*365*24*time.Hour, &k.Age)
			}
		},
	})
}

func (r *reader) whole(n *node, low, high int, into *int) {
	text, ok := r.str(n, "a number")
	if !ok {
		return
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < low || v > high {
		r.fault(n.at, "", "%s: want a number from %d to %d, found %q", n.key, low, high, text)
		return
	}
	*into = v
}

// floors reads a mapping from tables to numbers of rows.
func (r *reader) floors(n *node) map[string]int64 {
	if n.kind != mapping || len(n.entries) > MaxTables {
		r.fault(n.at, "write rows: {TABLE: NUMBER}", "rows: want a mapping of at most %d tables, %s", MaxTables, n.found())
		return nil
	}
	all := make(map[string]int64)
	for _, e := range n.entries {
		text, ok := r.str(e.value, "a number of rows")
		v, err := strconv.ParseInt(text, 10, 64)
		if ok && (err != nil || v < 0) {
			r.fault(e.value.at, "", "rows: want a number of rows, found %q", text)
		}
		all[e.key] = v
	}
	return all
}

func (r *reader) tableNames(n *node) (all []string) {
	for _, item := range r.list(n, "tables", MaxTables) {
		if name, ok := r.str(item, "the name of a table"); ok {
			all = append(all, name)
		}
	}
	return all
}

// size reads a number of bytes, with KiB, MiB or GiB behind it, or K, M and G for the
// same.
func (r *reader) size(n *node, low, high int64, into *int64) {
	text, ok := r.str(n, "a number of bytes")
	if !ok {
		return
	}
	number, unit := strings.TrimRight(text, "KMGiBkmgb "), int64(1)
	switch strings.ToUpper(strings.TrimSpace(text[len(number):])) {
	case "", "B":
	case "K", "KIB":
		unit = 1 << 10
	case "M", "MIB":
		unit = 1 << 20
	case "G", "GIB":
		unit = 1 << 30
	default:
		number = ""
	}
	v, err := strconv.ParseInt(number, 10, 64)
	switch {
	case err != nil:
		r.fault(n.at, "write bytes, or 64KiB, 10MiB, 1GiB", "%s: %q is not a number of bytes", n.key, text)
	case v < low/unit || v > high/unit || v*unit < low:
		r.fault(n.at, "", "%s: %s is out of range: want %d to %d bytes", n.key, text, low, high)
	default:
		*into = v * unit
	}
}

// replicationFits fills in what depends on the rest of the file, and checks what two
// databases must not share.
func (r *reader) replicationFits(f *File, drafts []*draft, at []pos) {
	stores, sources := map[string]string{}, map[string]string{}
	var names []string
	for i := range f.Replication {
		p := &f.Replication[i]
		where := at[i]
		before := r.faults
		if p.Name == "" {
			p.Name = p.Source.Kind
		}
		if slices.Contains(names, p.Name) && p.Name != "" {
			r.fault(where, "give each a name of its own", "replication: %s is there twice", p.Name)
		}
		names = append(names, p.Name)
		if p.Store == "" && p.Name != "" {
			p.Store = filepath.Join(f.StateDir, "replication", p.Name)
		}
		r.follows(p, drafts, where)
		for _, one := range []struct {
			path string
			all  map[string]string
			what string
		}{{p.Store, stores, "store"}, {p.Source.Database, sources, "source"}} {
			if first := one.all[one.path]; first != "" && one.path != "" {
				r.fault(where, "", "replication %s: its %s is that of %s: %s", p.Name, one.what, first, one.path)
			}
			one.all[one.path] = p.Name
		}
		if f.NodeID == 0 {
			r.fault(where, "write node_id: NUMBER at the top level, another one on each node", "replication: snapshots are numbered by the node_id of who takes them, and there is none")
		}
		r.syncFits(*p, f.NodeID)
		if r.faults == before {
			r.checkReplication(*p, where)
		}
	}
}

// follows finds the instance whose role the replication follows.
func (r *reader) follows(p *Replication, drafts []*draft, at pos) {
	var names []string
	for _, d := range drafts {
		names = append(names, d.Name)
	}
	switch {
	case p.Instance == "" && len(drafts) == 1:
		p.Instance = drafts[0].Name
	case p.Instance == "":
		r.fault(at, "name one of "+joinSome(names), "replication: instance is missing: whose role does it follow?")
	case !slices.Contains(names, p.Instance):
		r.fault(at, didYouMean(p.Instance, names), "replication: there is no instance %s", p.Instance)
	}
}

// checkReplication asks the daemon about an entry.
func (r *reader) checkReplication(p Replication, at pos) {
	if r.options.CheckReplication == nil {
		return
	}
	err := r.options.CheckReplication(p)
	if err == nil {
		return
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, e := range all {
		problem := r.problem(Fault, at, "", fmt.Sprintf("replication %s: %s", p.Name, strings.ReplaceAll(e.Error(), "\n", "; ")))
		problem.Cause = errors.Unwrap(e)
		r.note(problem)
	}
}

// replicationDiff says by name which entries are new, gone or different.
func replicationDiff(was, is []Replication) string {
	names := func(all []Replication) (out []string) {
		for _, p := range all {
			out = append(out, p.Name)
		}
		return out
	}
	text := listDiff(names(was), names(is))
	for _, p := range was {
		i := slices.IndexFunc(is, func(o Replication) bool { return o.Name == p.Name })
		if i >= 0 && !p.Equal(is[i]) {
			if text != "" {
				text += ", "
			}
			text += "changed " + p.Name
		}
	}
	return text
}
