package proxysqlstub

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ask answers a statement on the admin port.
func (s *server) ask(from *session, text string) (*result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.queries++
	s.pause(faultAdminSlow)
	plain := strings.Join(strings.Fields(strings.TrimRight(text, "; \t\r\n")), " ")
	upper := strings.ToUpper(plain)
	if nothing(upper) {
		return &result{}, nil
	}
	if !from.stats {
		if r, err, done := s.command(from, plain, upper); done {
			return r, err
		}
	}
	if r, done := s.byHand(from, upper); done {
		return r, nil
	}
	s.refresh(text)
	on := s.main
	if from.stats {
		on = s.stat
	}
	if query := rewritten(plain, upper); query != "" {
		return s.sql(on, query)
	}
	if s.readOnly {
		s.ran(on.exec("PRAGMA query_only=ON"))
	}
	r, err := s.sql(on, text)
	if s.readOnly && !from.stats {
		s.ran(on.exec("PRAGMA query_only=OFF"))
	}
	return r, err
}

// sql has SQLite run a statement of a client.
func (s *server) sql(on *store, text string) (*result, error) {
	r, err := on.do(text)
	if err != nil {
		return nil, denied("ProxySQL Admin Error: %v", err)
	}
	return r, nil
}

// nothing reports whether a statement is answered with OK and not run: what drivers
// say, and all of transactions.
func nothing(upper string) bool {
	for _, prefix := range []string{"BEGIN", "COMMIT", "ROLLBACK", "START TRANSACTION", "SET NAMES", "SET AUTOCOMMIT", "SET CHARACTER SET", "SET SESSION", "SET SQL_",
		"USE", "LOCK TABLES", "UNLOCK TABLES", "SET FOREIGN_KEY_CHECKS"} {
		if rest, ok := strings.CutPrefix(upper, prefix); ok && (rest == "" || !isLetter(rest[0]) || strings.HasSuffix(prefix, "_")) {
			return true
		}
	}
	return false
}

func isLetter(c byte) bool { return c >= 'A' && c <= 'Z' || c == '_' }

var (
	layerCommand = regexp.MustCompile(`^(LOAD|SAVE) ([A-Z ]+) (FROM|TO) (DISK|MEMORY|MEM|RUNTIME|RUN|CONFIG)$`)
	killCommand  = regexp.MustCompile(`^KILL CONNECTION (\d+)$`)
	setCommand   = regexp.MustCompile(`(?is)^SET\s+([a-z_][\w-]*)\s*=\s*(.*?)$`)
	showCreate   = regexp.MustCompile(`(?i)^SHOW CREATE TABLE (?:(\w+)\.)?(\w+)$`)
	showTables   = regexp.MustCompile(`(?i)^SHOW TABLES(?: (?:FROM|IN) (\w+))?(?: LIKE ('[^']*'))?$`)
	showVars     = regexp.MustCompile(`(?i)^SHOW (?:GLOBAL |ALL |MYSQL |ADMIN )?VARIABLES(?: LIKE ('[^']*'))?$`)
	oneVariable  = regexp.MustCompile(`(?i)^SELECT @@(?:GLOBAL\.)?([\w-]+)(?: LIMIT 1)?$`)
)

// command runs what only admin users may say and SQLite does not know.
func (s *server) command(from *session, plain, upper string) (r *result, err error, done bool) {
	if m := layerCommand.FindStringSubmatch(upper); m != nil {
		if i := slices.IndexFunc(modules(), func(x module) bool { return x.name == m[2] }); i >= 0 && s.layer(modules()[i], m[1], m[3], m[4]) {
			return &result{}, nil, true
		}
		return nil, nil, false // SQLite says what is wrong with it
	}
	if m := killCommand.FindStringSubmatch(upper); m != nil {
		id, _ := strconv.ParseUint(m[1], 10, 32) // digits only: 0 is nobody
		if v := s.sessions[uint32(id)]; v != nil && v.client {
			_ = v.wire.Close()
		}
		return &result{}, nil, true
	}
	if m := setCommand.FindStringSubmatch(plain); m != nil {
		return s.set1(m[1], m[2]), nil, true
	}
	if text, ok := strings.CutPrefix(upper, "LOGENTRY "); ok {
		s.log("[INFO] LOGENTRY: %s", plain[len(plain)-len(text):])
		return &result{}, nil, true
	}
	switch command := strings.TrimPrefix(upper, "PROXYSQL "); command {
	case "READONLY":
		s.readOnly = true
	case "READWRITE":
		s.readOnly = false
	case "FLUSH CONFIGDB":
		s.reopen()
	case "PAUSE":
		s.hush()
	case "RESUME":
		s.speak()
	case "FLUSH LOGS", "FLUSH QUERY CACHE", "RELOAD TLS":
	case "SHUTDOWN", "KILL", "SHUTDOWN SLOW", "RESTART":
		_ = from.wire.Close()
		code := 0
		if command == "RESTART" {
			code = restartCode
		}
		s.log("[INFO] Received PROXYSQL %s command", command)
		s.exit(code)
	case "SELECT GLOBAL_CHECKSUM()":
		sum := strconv.FormatUint(s.globalChecksum(), 10)
		return &result{columns: []string{"CHECKSUM"}, rows: [][]*string{{&sum}}, numeric: true}, nil, true
	default:
		return nil, nil, false
	}
	return &result{}, nil, true
}

// layer moves a module between two layers; false if there is no such way.
func (s *server) layer(m module, verb, direction, layer string) bool {
	switch layer = strings.Replace(layer, "MEMORY", "MEM", 1); verb + " " + direction + " " + strings.Replace(layer, "RUNTIME", "RUN", 1) {
	case "LOAD FROM DISK", "LOAD TO MEM":
		s.diskToMemory(m)
	case "LOAD TO RUN", "LOAD FROM MEM":
		s.memoryToRuntime(m)
	case "SAVE TO DISK", "SAVE FROM MEM":
		s.memoryToDisk(m)
	case "SAVE TO MEM", "SAVE FROM RUN":
		if m.name == "RESTAPI" { // as upstream has it
			m = modules()[slices.IndexFunc(modules(), func(x module) bool { return x.name == "SCHEDULER" })]
		}
		s.runtimeToMemory(m)
	case "LOAD FROM CONFIG":
		s.args.config.into(s, m)
	default:
		return false
	}
	return true
}

// set1 is SET: in memory, and OK also for what there is not.
func (s *server) set1(name, value string) *result {
	if len(value) >= 2 && (value[0] == '\'' || value[0] == '"') && value[len(value)-1] == value[0] {
		value = value[1 : len(value)-1]
	}
	if s.readOnly {
		return &result{info: "attempt to write a readonly database"}
	}
	r, err := s.main.do("UPDATE main.global_variables SET variable_value=" + quote(value) + " WHERE variable_name=" + quote(name))
	if err != nil || r.changed == 0 {
		return &result{info: "Unknown global variable: '" + name + "'."}
	}
	return r
}

// byHand answers the questions whose answers are not of SQLite.
func (s *server) byHand(from *session, upper string) (*result, bool) {
	one := func(name, value string) (*result, bool) {
		return &result{columns: []string{name}, rows: [][]*string{{&value}}}, true
	}
	switch upper {
	case "SELECT @@VERSION":
		return one("@@version", Version)
	case "SELECT @@VERSION_COMMENT", "SELECT @@VERSION_COMMENT LIMIT 1":
		return one("@@version_comment", "(ProxySQL Admin Module)")
	case "SELECT @@MAX_ALLOWED_PACKET":
		return one("@@max_allowed_packet", s.variable("mysql-max_allowed_packet"))
	case "SELECT VERSION()":
		return one("version()", Version)
	case "SELECT DATABASE()", "SELECT DATABASE() AS NAME":
		return one("DATABASE()", "admin")
	case "SELECT USER()", "SELECT CURRENT_USER()":
		return one("USER()", from.user)
	case "SELECT @@GLOBAL.READ_ONLY":
		r, _ := one("@@global.read_only", number(s.readOnly))
		r.numeric = true
		return r, true
	case "SHOW GLOBAL VARIABLES LIKE 'READ_ONLY'":
		name, value := "read_only", map[bool]string{true: "ON", false: "OFF"}[s.readOnly]
		return &result{columns: []string{"Variable_name", "Value"}, rows: [][]*string{{&name, &value}}}, true
	case "SHOW DATABASES", "SHOW SCHEMAS":
		on := s.main
		if from.stats {
			on = s.stat
		}
		r, err := on.do("PRAGMA DATABASE_LIST")
		if err != nil {
			return nil, false
		}
		r.rows = slices.DeleteFunc(r.rows, func(row []*string) bool { return *row[1] == "temp" })
		return r, true
	}
	return nil, false
}

func number(b bool) string { return map[bool]string{true: "1", false: "0"}[b] }

// rewritten returns what a SHOW or SELECT @@ is for SQLite; "" for all others.
func rewritten(plain, upper string) string {
	if upper == "SHOW PROMETHEUS METRICS" {
		return ""
	}
	like := func(column, pattern string) string {
		if pattern == "" {
			return ""
		}
		return " AND " + column + " LIKE " + pattern
	}
	if m := showTables.FindStringSubmatch(plain); m != nil {
		schema := m[1]
		if schema == "" {
			schema = "main"
		}
		return "SELECT name AS tables FROM " + schema + ".sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'" + like("name", m[2]) + " ORDER BY name"
	}
	if m := showCreate.FindStringSubmatch(plain); m != nil {
		schema := m[1]
		if schema == "" {
			schema = "main"
		}
		return "SELECT name AS 'table', sql AS 'Create Table' FROM " + schema + ".sqlite_master WHERE type='table' AND name=" + quote(m[2])
	}
	if m := showVars.FindStringSubmatch(plain); m != nil {
		words := strings.Fields(upper)
		return "SELECT variable_name AS Variable_name, variable_value AS Value FROM main.global_variables WHERE " + map[string]string{
			"MYSQL": "variable_name LIKE 'mysql-%'", "ADMIN": "variable_name LIKE 'admin-%'"}[words[1]] +
			map[bool]string{true: "", false: "1"}[words[1] == "MYSQL" || words[1] == "ADMIN"] + like("variable_name", m[1]) + " ORDER BY variable_name"
	}
	if m := oneVariable.FindStringSubmatch(plain); m != nil {
		return "SELECT variable_value AS '@@" + m[1] + "' FROM main.global_variables WHERE variable_name=" + quote(m[1])
	}
	return ""
}
