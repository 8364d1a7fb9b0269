package haproxy

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/carpd/carpd/hooks"
)

// view is what an HAProxy says of itself. The zero value does not run.
type view struct {
	pid      int // of the process that answers: 0 if none does
	stopping bool
	version  string
	rows     []row
}

// row is one line of show stat.
type row struct {
	proxy, name string // name is FRONTEND, BACKEND or a server's
	kind        kind
	status      string
	sessions    int
}

// kind is the column type of show stat.
type kind int

const (
	frontend kind = iota
	backend
	server
)

// parseInfo reads show info: lines of "Key: value".
func parseInfo(said string) (v view, err error) {
	for line := range strings.Lines(said) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Pid":
			v.pid, _ = strconv.Atoi(value)
		case "Stopping":
			v.stopping = value != "0"
		case "Version":
			v.version = value
		}
	}
	if v.pid <= 0 {
		return view{}, fmt.Errorf("haproxy: read show info: no process id in it: %s", firstLine(strings.TrimSpace(said)))
	}
	return v, nil
}

// parseStat reads show stat: CSV whose first line, after "# ", names the columns. Their
// number grows with each version; those that count here have always been there.
func parseStat(said string) ([]row, error) {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(said, "# ")))
	r.LazyQuotes, r.FieldsPerRecord = true, -1
	lines, err := r.ReadAll()
	if err != nil || len(lines) == 0 {
		return nil, fmt.Errorf("haproxy: read show stat: %w", err)
	}
	column := make(map[string]int)
	for i, name := range lines[0] {
		column[name] = i
	}
	for _, name := range []string{"pxname", "svname", "type", "status", "scur"} {
		if _, there := column[name]; !there {
			return nil, fmt.Errorf("haproxy: read show stat: no column %s: %s", name, firstLine(said))
		}
	}
	var rows []row
	for _, f := range lines[1:] {
		get := func(name string) string {
			if i := column[name]; i < len(f) {
				return f[i]
			}
			return ""
		}
		n, err := strconv.Atoi(get("type"))
		if err != nil {
			return nil, fmt.Errorf("haproxy: read show stat: %q is no type: %s", get("type"), strings.Join(f, ","))
		}
		sessions, _ := strconv.Atoi(get("scur")) // empty where there can be none
		rows = append(rows, row{proxy: get("pxname"), name: get("svname"), kind: kind(n), status: get("status"), sessions: sessions})
	}
	return rows, nil
}

// up reports whether a process answers that takes connections.
func (v view) up() bool { return v.pid != 0 && !v.stopping }

// words says it in a clause.
func (v view) words() string {
	switch {
	case v.pid == 0:
		return "it does not run, or its socket is not there"
	case v.stopping:
		return fmt.Sprintf("process %d is stopping", v.pid)
	}
	return fmt.Sprintf("process %d of version %s runs", v.pid, v.version)
}

// frontend returns the row of a frontend.
func (v view) frontend(name string) (row, bool) {
	i := slices.IndexFunc(v.rows, func(r row) bool { return r.kind == frontend && r.proxy == name })
	if i < 0 {
		return row{}, false
	}
	return v.rows[i], true
}

// opened counts, of some frontends, those that take connections, and names those that
// are not there. The status is OPEN, PAUSED after "disable frontend" (STOP where nothing
// is left that could be resumed), or FULL.
func (v view) opened(frontends []string) (open int, missing []string) {
	for _, name := range frontends {
		r, there := v.frontend(name)
		switch {
		case !there:
			missing = append(missing, name)
		case r.status == "OPEN" || r.status == "FULL":
			open++
		}
	}
	return open, missing
}

// usable reports whether a server gets new connections: UP, also while checks begin to
// fail ("UP 1/3"), or not checked at all. DRAIN, MAINT, NOLB and DOWN get none.
func (r row) usable() bool {
	return r.kind == server && (strings.HasPrefix(r.status, "UP") || r.status == "no check")
}

// servers counts the servers of a backend, and those that are usable.
func (v view) servers(backend string) (up, all int) {
	for _, r := range v.rows {
		if r.kind == server && r.proxy == backend {
			all++
			if r.usable() {
				up++
			}
		}
	}
	return up, all
}

// backends lists the backends that have servers, in their order.
func (v view) backends() (names []string) {
	for _, r := range v.rows {
		if r.kind == server && !slices.Contains(names, r.proxy) {
			names = append(names, r.proxy)
		}
	}
	return names
}

// fit says whether clients would be served: each backend that counts has a server.
func (c *Config) fit(v view) (hooks.Health, string) {
	if !v.up() {
		return hooks.Unfit, v.words()
	}
	names := c.Backends
	if len(names) == 0 {
		names = v.backends()
	}
	health, text := hooks.Healthy, v.words()
	for _, name := range names {
		up, all := v.servers(name)
		switch {
		case all == 0:
			return hooks.Unfit, fmt.Sprintf("backend %s has no servers: is the name right?", name)
		case up == 0:
			return hooks.Unfit, fmt.Sprintf("none of the %d servers of backend %s is up", all, name)
		case up < c.MinServers && health == hooks.Healthy:
			health, text = hooks.Degraded, fmt.Sprintf("%d of the %d servers of backend %s are up, fewer than %d", up, all, name, c.MinServers)
		}
	}
	return health, text
}

// role tells the role from the process itself; of one that runs on both nodes alike it
// cannot be told.
func (c *Config) role(v view) (hooks.Role, string) {
	switch c.Standby {
	case Stopped:
		switch {
		case v.pid == 0:
			return hooks.RoleDemoted, v.words()
		case v.stopping:
			return hooks.RoleUnknown, v.words()
		}
		return hooks.RolePromoted, v.words()
	case Closed:
		if !v.up() {
			return hooks.RoleDemoted, v.words()
		}
		open, missing := v.opened(c.Frontends)
		switch {
		case len(missing) > 0:
			return hooks.RoleUnknown, "no such frontend: " + strings.Join(missing, ", ")
		case open == 0:
			return hooks.RoleDemoted, "its frontends are disabled"
		case open == len(c.Frontends):
			return hooks.RolePromoted, "its frontends are open"
		}
		return hooks.RoleUnknown, fmt.Sprintf("%d of %d frontends are open", open, len(c.Frontends))
	}
	return hooks.RoleUnknown, v.words()
}

// masterView is what the master's socket says: how often it was reloaded, whether the
// last time failed, and who works. The zero value could not be read.
type masterView struct {
	pid     int
	reloads int
	failed  int
	workers []int // current ones
}

// parseProc reads show proc.
func parseProc(said string) (m masterView, err error) {
	current := false
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "#") {
			current = strings.HasPrefix(line, "# workers")
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		pid, err := strconv.Atoi(f[0])
		if err != nil {
			continue
		}
		switch {
		case f[1] == "master":
			m.pid = pid
			m.reloads, _ = strconv.Atoi(f[2])
			if _, after, some := strings.Cut(line, "[failed:"); some { // since 2.5
				count, _, _ := strings.Cut(after, "]")
				m.failed, _ = strconv.Atoi(strings.TrimSpace(count))
			}
		case f[1] == "worker" && current:
			m.workers = append(m.workers, pid)
		}
	}
	if m.pid == 0 {
		return m, fmt.Errorf("haproxy: read show proc: no master in it: is it the master's socket (-S)? %s", firstLine(strings.TrimSpace(said)))
	}
	return m, nil
}
