package mysql

import (
	"context"
	"slices"
	"strings"
)

// privileges are those that carpd's account needs for a promotion and a demotion.
func (d *dialect) privileges(c Config) []string {
	if !d.maria {
		all := []string{"REPLICATION_SLAVE_ADMIN", "SYSTEM_VARIABLES_ADMIN", "CONNECTION_ADMIN", "REPLICATION CLIENT", "RELOAD", "PROCESS"}
		if c.Events {
			all = append(all, "EVENT", "SESSION_VARIABLES_ADMIN")
		}
		return all
	}
	all := []string{"REPLICATION SLAVE ADMIN", "SLAVE MONITOR", "READ_ONLY ADMIN", "CONNECTION ADMIN", "RELOAD", "PROCESS"}
	if c.SemiSync {
		all = append(all, "REPLICATION MASTER ADMIN")
	}
	if c.Events {
		all = append(all, "EVENT", "SET USER", "BINLOG ADMIN", "SUPER")
	}
	return all
}

// lacking returns which of the wanted privileges are in none of the lines of SHOW GRANTS.
// What comes by a role is not told there: then it is taken for granted.
func lacking(wanted, lines []string) (missing []string) {
	var have []string
	for _, line := range lines {
		list, on, global := strings.Cut(strings.TrimPrefix(line, "GRANT "), " ON ")
		if !global {
			return nil // a role
		}
		if !strings.HasPrefix(on, "*.*") {
			continue
		}
		for p := range strings.SplitSeq(list, ",") {
			have = append(have, strings.TrimSpace(p))
		}
	}
	if slices.Contains(have, "ALL PRIVILEGES") {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(wanted), func(p string) bool { return slices.Contains(have, p) })
}

// grants returns what the account lacks.
func (e *session) grants(ctx context.Context, c Config) ([]string, error) {
	rows, err := e.query(ctx, "SHOW GRANTS")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, r := range rows {
		for _, line := range r {
			lines = append(lines, line)
		}
	}
	return lacking(e.d.privileges(c), lines), nil
}
