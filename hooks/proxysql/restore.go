package proxysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/secret"
	"github.com/carpd/carpd/replicator/sqlite"
)

// maxBatch is how long a statement becomes, in bytes, until another one is begun.
const maxBatch = 256 << 10

// module is what ProxySQL loads and saves at a time.
type module struct {
	name   string   // as in LOAD NAME TO RUNTIME
	tables []string // none: variables
	prefix string   // of variables
}

// modules are in the order in which they are loaded. The variables of the admin module
// come last: with them the credentials may change.
func modules() []module {
	return []module{
		{name: "MYSQL VARIABLES", prefix: "mysql-"},
		{name: "MYSQL SERVERS", tables: []string{"mysql_replication_hostgroups", "mysql_group_replication_hostgroups", "mysql_galera_hostgroups", "mysql_aws_aurora_hostgroups",
			"mysql_hostgroup_attributes", "mysql_servers_ssl_params", "mysql_servers"}},
		{name: "MYSQL USERS", tables: []string{"mysql_users"}},
		{name: "MYSQL QUERY RULES", tables: []string{"mysql_query_rules", "mysql_query_rules_fast_routing"}},
		{name: "MYSQL FIREWALL", tables: []string{"mysql_firewall_whitelist_users", "mysql_firewall_whitelist_rules", "mysql_firewall_whitelist_sqli_fingerprints"}},
		{name: "SCHEDULER", tables: []string{"scheduler"}},
		{name: "RESTAPI", tables: []string{"restapi_routes"}},
		{name: "PROXYSQL SERVERS", tables: []string{"proxysql_servers"}},
		{name: "ADMIN VARIABLES", prefix: "admin-"},
	}
}

const (
	variables   = "global_variables"
	credentials = "admin-admin_credentials"
)

// restore gives the running ProxySQL the configuration of a snapshot. It implements
// database.Program.
func (r *resource) restore(ctx context.Context, snapshot string) error {
	a, err := r.admin(ctx)
	if err != nil {
		return err
	}
	defer a.close()
	all := modules()
	if !r.c.ShareServers {
		all = slices.DeleteFunc(all, func(m module) bool { return m.name == "PROXYSQL SERVERS" })
	}
	if all, err = a.carries(ctx, all, snapshot); err != nil {
		return err
	}
	// All is in memory, and compared, before anything of it runs.
	for _, m := range all {
		if err := r.remember(ctx, a, m, snapshot); err != nil {
			return fmt.Errorf("write %s into memory: %w", strings.ToLower(m.name), err)
		}
	}
	if err := hooks.MarkNoReturn(ctx, "runtime"); err != nil {
		return err
	}
	since := time.Now()
	for _, m := range all {
		for _, command := range []string{"LOAD " + m.name + " TO RUNTIME", "SAVE " + m.name + " TO DISK"} {
			if err := a.run(ctx, command); err != nil {
				return fmt.Errorf("%s: %w", command, err)
			}
		}
	}
	for _, m := range all {
		if err := a.saved(ctx, m); err != nil {
			return err
		}
	}
	if err := a.runs(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.c.readiness(), fmt.Errorf("not ready within start_timeout, %v", r.c.readiness()))
	defer cancel()
	return r.await(ctx, since, nil)
}

// ofNode are tables that are no configuration, or that the rows of variables are in.
func ofNode() []string {
	return []string{variables, "global_settings", "mysql_collations", "coredump_filters", "debug_levels", "debug_filters", "proxysql_servers"}
}

// carries returns the modules with the tables that this ProxySQL has, or refuses a snapshot
// with rows that would not be restored: in a table that it does not have, or in one of a
// module that is not known here.
func (a admin) carries(ctx context.Context, all []module, snapshot string) (carried []module, err error) {
	rows, err := a.rows(ctx, "SELECT name FROM main.sqlite_master WHERE type='table'")
	if err != nil {
		return nil, fmt.Errorf("ask for the tables: %w", err)
	}
	has := make(map[string]bool)
	for _, row := range rows {
		has[row[0].String] = true
	}
	known := make(map[string]bool)
	for _, m := range all {
		var tables []string
		for _, t := range m.tables {
			if known[t] = true; has[t] {
				tables = append(tables, t)
			} else if err := without(ctx, snapshot, t, "this ProxySQL has no such table"); err != nil {
				return nil, err
			}
		}
		if m.tables == nil || tables != nil {
			carried = append(carried, module{m.name, tables, m.prefix})
		}
	}
	for t := range has {
		if known[t] || strings.HasPrefix(t, "runtime_") || strings.HasPrefix(t, "sqlite_") || slices.Contains(ofNode(), t) {
			continue
		}
		if err := without(ctx, snapshot, t, "mode warm does not know how to load them"); err != nil {
			return nil, err
		}
	}
	return carried, nil
}

// without returns nil if a snapshot has no rows in a table.
func without(ctx context.Context, snapshot, table, why string) error {
	_, rows, err := sqlite.Read(ctx, snapshot, table)
	if err == nil && len(rows) > 0 {
		err = fmt.Errorf("the snapshot has %d rows in %s, and %s: use mode: cold with the same release on all nodes", len(rows), table, why)
	}
	return err
}

// readiness is how long ProxySQL may take until it serves with another configuration.
func (c Config) readiness() time.Duration {
	if c.StartTimeout > 0 {
		return c.StartTimeout
	}
	return 30 * time.Second
}

// remember writes a module into memory and reads it back.
func (r *resource) remember(ctx context.Context, a admin, m module, snapshot string) error {
	if m.tables == nil {
		columns, rows, err := sqlite.Read(ctx, snapshot, variables)
		if err != nil {
			return err
		}
		if rows, err = r.shared(ctx, columns, rows, m.prefix); err != nil {
			return err
		}
		return a.replace(ctx, variables, columns, rows, "WHERE variable_name IN ("+names(rows)+")")
	}
	for _, table := range m.tables {
		columns, rows, err := sqlite.Read(ctx, snapshot, table)
		if err != nil {
			return err
		}
		if columns == nil { // made by an older release, which does not have the table
			if err := a.run(ctx, "DELETE FROM main."+table); err != nil {
				return err
			}
			continue
		}
		if err := a.run(ctx, "DELETE FROM main."+table); err != nil {
			return err
		}
		if err := a.replace(ctx, table, columns, rows, ""); err != nil {
			return err
		}
	}
	return nil
}

// shared returns the variables with a prefix that nodes have in common.
func (r *resource) shared(ctx context.Context, columns []string, rows [][]sqlite.Value, prefix string) (all [][]sqlite.Value, err error) {
	if len(columns) != 2 || columns[0] != "variable_name" {
		return nil, fmt.Errorf("%s has the columns %q", variables, columns)
	}
	for _, row := range rows {
		name := row[0].Text
		if !strings.HasPrefix(name, prefix) || r.isLocal(name) {
			continue
		}
		if name == credentials {
			mine, err := r.letsMeIn(row[1].Text)
			if err != nil {
				return nil, err
			}
			if !mine {
				hooks.Logger(ctx).Warn("the snapshot has other credentials of the admin port, with which this node could not log in: those of this node stay", "variable", name, "user", r.c.User)
				continue
			}
		}
		all = append(all, row)
	}
	return all, nil
}

// isLocal reports whether each node has its own value of a variable.
func (r *resource) isLocal(name string) bool {
	return slices.ContainsFunc(r.local, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// letsMeIn reports whether this daemon is among the credentials, USER:PASSWORD;...
func (r *resource) letsMeIn(credentials string) (bool, error) {
	password, err := secret.Read(r.c.PasswordFile)
	return slices.Contains(strings.Split(credentials, ";"), r.c.User+":"+password), err
}

func names(rows [][]sqlite.Value) string {
	var all []string
	for _, row := range rows {
		all = append(all, row[0].Literal())
	}
	return strings.Join(all, ",")
}

// replace writes rows into a table in memory, and compares what is there then.
func (a admin) replace(ctx context.Context, table string, columns []string, rows [][]sqlite.Value, where string) error {
	if err := a.insert(ctx, table, columns, rows); err != nil {
		return err
	}
	if len(rows) == 0 && where != "" {
		return nil
	}
	got, err := a.rows(ctx, strings.TrimSpace("SELECT "+strings.Join(columns, ",")+" FROM main."+table+" "+where))
	if err != nil {
		return fmt.Errorf("read %s back: %w", table, err)
	}
	var want, have []string
	for _, row := range rows {
		want = append(want, key(row, func(v sqlite.Value) (string, bool) { return v.Text, v.Class == "null" }))
	}
	for _, row := range got {
		have = append(have, key(row, func(v sql.NullString) (string, bool) { return v.String, !v.Valid }))
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		return &differs{fmt.Sprintf("%s was written and reads differently: %d rows, and %d in the snapshot", table, len(have), len(want))}
	}
	return nil
}

// key makes one text of a row, which no other row has.
func key[V any](row []V, text func(V) (string, bool)) string {
	var b strings.Builder
	for _, v := range row {
		if s, null := text(v); null {
			b.WriteString("-;")
		} else {
			fmt.Fprintf(&b, "%d:%s;", len(s), s)
		}
	}
	return b.String()
}

// insert writes rows, many in one statement.
func (a admin) insert(ctx context.Context, table string, columns []string, rows [][]sqlite.Value) error {
	head := "REPLACE INTO main." + table + " (" + strings.Join(columns, ",") + ") VALUES "
	var b strings.Builder
	flush := func() error {
		if b.Len() == 0 {
			return nil
		}
		err := a.run(ctx, head+b.String())
		b.Reset()
		return refused(err)
	}
	for _, row := range rows {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		for i, v := range row {
			b.WriteByte("(,"[min(i, 1)])
			b.WriteString(v.Literal())
		}
		b.WriteByte(')')
		if b.Len() > maxBatch {
			if err := flush(); err != nil {
				return fmt.Errorf("insert into %s: %w", table, err)
			}
		}
	}
	if err := flush(); err != nil {
		return fmt.Errorf("insert into %s: %w", table, err)
	}
	return nil
}

// refused makes of an error of a statement one of its rows, if it is: columns and
// conditions of a table differ between releases.
func refused(err error) error {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok && (strings.Contains(e.Message, "constraint failed") || strings.Contains(e.Message, "has no column")) {
		return &differs{e.Error()}
	}
	return err
}

// saved compares a module in memory with the disk: a SAVE that failed is answered OK.
func (a admin) saved(ctx context.Context, m module) error {
	tables, where := m.tables, ""
	if tables == nil {
		tables, where = []string{variables}, " WHERE variable_name LIKE '"+m.prefix+"%'"
	}
	for _, t := range tables {
		for _, pair := range [][2]string{{"main", "disk"}, {"disk", "main"}} {
			if t == variables && pair[0] == "disk" {
				continue // SAVE never deletes a variable there
			}
			n, err := a.count(ctx, fmt.Sprintf("SELECT COUNT(*) FROM (SELECT * FROM %s.%s%s EXCEPT SELECT * FROM %s.%s)", pair[0], t, where, pair[1], t))
			if err != nil {
				return fmt.Errorf("compare %s in memory and on disk: %w", t, err)
			}
			if n > 0 {
				return fmt.Errorf("SAVE %s TO DISK was answered with OK, and %d rows of %s differ on disk: see the log of ProxySQL (full disk, read-only, another file in its place?)", m.name, n, t)
			}
		}
	}
	return nil
}

// runs looks whether what is in memory is what runs: users, and servers but for those
// that the monitor moves.
func (a admin) runs(ctx context.Context) error {
	for _, q := range []struct{ what, left string }{
		{"users", "SELECT DISTINCT username FROM main.mysql_users WHERE active=1 EXCEPT SELECT username FROM runtime_mysql_users"},
		{"servers", "SELECT DISTINCT hostname, port FROM main.mysql_servers WHERE status<>'OFFLINE_HARD' EXCEPT SELECT hostname, port FROM runtime_mysql_servers"},
		{"users that are gone", "SELECT DISTINCT username FROM runtime_mysql_users EXCEPT SELECT username FROM main.mysql_users WHERE active=1"},
	} {
		rows, err := a.rows(ctx, q.left)
		if err != nil {
			return fmt.Errorf("compare memory and runtime: %w", err)
		}
		if len(rows) > 0 {
			return &differs{"LOAD was answered with OK, and the runtime differs: " + fmt.Sprint(len(rows)) + " " + q.what}
		}
	}
	return nil
}
