package mysql

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
)

// state is what a server says of itself at one moment.
type state struct {
	name     string // of the server
	maria    bool
	server   uint32 // @@server_id
	readOnly bool   // nobody may write but those whom only MariaDB lets: see dialect.readOnly
	half     bool   // MySQL: read_only without super_read_only, or the other way round
	events   bool   // the event scheduler runs

	logs     bool     // binary log on
	passesOn bool     // what a replica applies is in its binary log too
	byGTID   bool     // MySQL: gtid_mode; MariaDB always
	strict   bool     // MariaDB: gtid_strict_mode; MySQL always
	lacks    []string // privileges of carpd's account; only Monitor asks
	origin   string   // where read_only was set: CONFIG, SQL, COMPILE-TIME; "" if unknown

	sources  []replication
	executed gtids // all it has
	ends     gtids // MariaDB: where its binary log ends with a transaction of its own, by domain
	received gtids // of its source; by domain with MariaDB
	applied  gtids // of it, in the same form
}

// replication is one source of a server and how it goes.
type replication struct {
	channel string // "" is the ordinary one
	host    string
	port    uint16
	io      string // Yes, Connecting, Preparing, No
	sql     string // Yes, No
	ioErr   string
	sqlErr  string
	byGTID  bool
	// ownPosition: MariaDB, and what it wrote itself is not part of where it is.
	ownPosition bool
	behind      time.Duration // -1: the server does not know
}

// role is what the server is used for.
func (s *state) role() hooks.Role {
	switch {
	case s.readOnly && !s.half:
		return hooks.RoleDemoted
	case !s.readOnly && !s.half && len(s.sources) == 0:
		return hooks.RolePromoted
	}
	return hooks.RoleUnknown
}

// source is the one source, nil if there is none or more than one.
func (s *state) source() *replication {
	if len(s.sources) != 1 {
		return nil
	}
	return &s.sources[0]
}

// local is what a replica of MariaDB wrote by itself after the last transaction that it
// applied. It is only known where the place in the source is a position of its own, apart
// from what it wrote.
func (s *state) local() gtids {
	if r := s.source(); r == nil || !r.ownPosition {
		return nil
	}
	local := gtids{}
	for domain, spans := range s.ends {
		if n := (gtids{domain: spans}).minus(s.applied); n.count() > 0 {
			local[domain+"-"+strconv.FormatUint(uint64(s.server), 10)] = n[domain]
		}
	}
	return local
}

// pending is what was received and not applied.
func (s *state) pending() gtids { return s.received.minus(s.applied) }

// at reports whether it replicates from this address.
func (r *replication) at(s *server) bool {
	return r.host == s.at.Addr().String() && r.port == s.at.Port()
}

func (r *replication) String() string {
	return r.host + ":" + strconv.Itoa(int(r.port))
}

func (r *replication) running() bool { return r.io == "Yes" && r.sql == "Yes" }

// fault is why replication stands, "" if it does not.
func (r *replication) fault() string {
	switch {
	case r.sqlErr != "":
		return "it cannot apply what it received: " + r.sqlErr
	case r.ioErr != "" && r.io == "No":
		return "it cannot receive: " + r.ioErr
	}
	return ""
}

// look reads the state.
func (e *session) look(ctx context.Context) (*state, error) {
	s := &state{name: e.name, maria: e.d.maria}
	rows, err := e.query(ctx, e.d.status)
	if err != nil {
		return nil, err
	}
	var position string
	for _, r := range rows {
		one, received, err := e.d.replication(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		s.sources, position = append(s.sources, one), received
	}
	// What is received is read before what is applied, and both before all that there is.
	if s.received, err = e.d.parsePosition(position); err != nil {
		return nil, fmt.Errorf("%s: received: %w", e.name, err)
	}
	vars, err := e.variables(ctx, e.d.variables()...)
	if err != nil {
		return nil, err
	}
	if err := s.take(&e.d, vars); err != nil {
		return nil, fmt.Errorf("%s: %w", e.name, err)
	}
	if e.d.maria {
		s.origin, err = e.one(ctx, "SELECT GLOBAL_VALUE_ORIGIN FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = 'READ_ONLY'")
	} else {
		s.origin, err = e.one(ctx, "SELECT VARIABLE_SOURCE FROM performance_schema.variables_info WHERE VARIABLE_NAME = 'super_read_only'")
		if number(err) != 0 {
			s.origin, err = "", nil // before 8.0, or not allowed: nobody depends on it
		}
	}
	return s, err
}

// variables are the global variables that look reads, in the order of a reader: what may
// grow meanwhile comes last.
func (d *dialect) variables() []string {
	all := []string{"server_id", "read_only", "event_scheduler", "log_bin"}
	if d.maria {
		return append(all, d.passesOn, "gtid_strict_mode", "gtid_slave_pos", "gtid_binlog_pos", "gtid_binlog_state")
	}
	return append(all, d.passesOn, "super_read_only", "gtid_mode", "gtid_executed")
}

// variables reads global variables.
func (e *session) variables(ctx context.Context, names ...string) (map[string]string, error) {
	rows, err := e.query(ctx, "SELECT @@GLOBAL."+strings.Join(names, ", @@GLOBAL."))
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 {
		return nil, fmt.Errorf("%s: it did not say its variables", e.name)
	}
	vars := map[string]string{}
	for _, n := range names {
		vars[n] = rows[0]["@@global."+n]
	}
	return vars, nil
}

// one reads a single value, "" if there is no row.
func (e *session) one(ctx context.Context, query string) (string, error) {
	rows, err := e.query(ctx, query)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	for _, v := range rows[0] {
		return v, nil
	}
	return "", nil
}

func isOn(value string) bool {
	return value == "1" || strings.EqualFold(value, "ON")
}

// take reads the variables.
func (s *state) take(d *dialect, vars map[string]string) error {
	id, err := strconv.ParseUint(vars["server_id"], 10, 32)
	if err != nil {
		return fmt.Errorf("server_id %q: not understood", vars["server_id"])
	}
	s.server = uint32(id)
	s.readOnly = isOn(vars["read_only"])
	s.events = isOn(vars["event_scheduler"])
	s.logs = isOn(vars["log_bin"])
	s.passesOn = isOn(vars[d.passesOn])
	s.byGTID, s.strict = true, true
	if !d.maria {
		s.half = s.readOnly != isOn(vars["super_read_only"])
		s.byGTID = isOn(vars["gtid_mode"])
		s.executed, err = d.parse(vars["gtid_executed"])
		s.applied = s.executed
		return err
	}
	s.strict = isOn(vars["gtid_strict_mode"])
	// The position counts beside the log: a server that was made from a backup has no log
	// of what is in it.
	log, bad := d.parse(vars["gtid_binlog_state"])
	position, worse := d.parse(vars["gtid_slave_pos"])
	s.executed = log.plus(position)
	var even, evener error
	s.applied, even = d.parsePosition(vars["gtid_slave_pos"])
	s.ends, evener = d.parsePosition(ownGTIDs(vars["gtid_binlog_pos"], s.server))
	return errors.Join(bad, worse, even, evener)
}

// ownGTIDs returns those of a list of MariaDB that are of one server.
func ownGTIDs(list string, server uint32) string {
	var own []string
	for part := range strings.SplitSeq(list, ",") {
		if strings.Contains(part, "-"+strconv.FormatUint(uint64(server), 10)+"-") {
			own = append(own, part)
		}
	}
	return strings.Join(own, ",")
}

// replication reads a row of dialect.status; received is how far it has received.
func (d *dialect) replication(r row) (one replication, received string, err error) {
	get := func(name string) string { return r[strings.ToLower(name)] }
	port, err := strconv.ParseUint(get(d.fields.port), 10, 16)
	if err != nil {
		return one, "", fmt.Errorf("the port of its source, %q: not understood", get(d.fields.port))
	}
	one = replication{
		channel: get("Channel_Name"), host: get(d.fields.host), port: uint16(port),
		io: get(d.fields.io), sql: get(d.fields.sql), behind: -1,
		ioErr: problem(get("Last_IO_Errno"), get("Last_IO_Error")), sqlErr: problem(get("Last_SQL_Errno"), get("Last_SQL_Error")),
		byGTID: isOn(get("Auto_Position")),
	}
	received = get("Retrieved_Gtid_Set")
	if d.maria {
		using := get("Using_Gtid")
		one.channel, one.byGTID = get("Connection_name"), using == "Slave_Pos" || using == "Current_Pos"
		one.ownPosition = using == "Slave_Pos"
		received = get("Gtid_IO_Pos")
	}
	if s, err := strconv.ParseInt(get(d.fields.behind), 10, 64); err == nil {
		one.behind = time.Duration(s) * time.Second
	}
	return one, received, nil
}

// maxProblem bounds what is shown of a server's error, in bytes: it may quote a row.
const maxProblem = 200

func problem(number, text string) string {
	if number == "" || number == "0" {
		return ""
	}
	if len(text) > maxProblem {
		text = strings.ToValidUTF8(text[:maxProblem], "") + "..."
	}
	return "error " + number + ": " + text
}
