package proxysqlstub

import (
	"errors"
	"net"
	"strings"
)

// session is one that is logged in, or about to be.
type session struct {
	id     uint32
	wire   *wire
	user   string
	from   string // its address
	client bool   // on the port for clients, not the one for admins
	stats  bool   // a user that sees statistics only

	hostgroup string // of a client's user
}

// serve takes connections until the listener is closed.
func (s *server) serve(l net.Listener, talk func(*session)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			v := s.enter(conn)
			defer s.leave(v)
			talk(v)
		}()
	}
}

func (s *server) enter(conn net.Conn) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions == nil {
		s.sessions = map[uint32]*session{}
	}
	s.lastID++
	v := &session{id: s.lastID, wire: newWire(conn), from: "localhost"}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		v.from = a.IP.String()
	}
	s.sessions[v.id] = v
	return v
}

func (s *server) leave(v *session) {
	_ = v.wire.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, v.id)
}

// local are the users that may log in from this host only.
func local(user string) bool { return user == "admin" || user == "stats" || user == "monitor" }

// talkAdmin is a connection to the admin port.
func (s *server) talkAdmin(v *session) {
	if s.set.fault(faultAdminMute) != "" {
		_, _ = v.wire.r.ReadByte() // until it is given up
		return
	}
	s.mu.Lock()
	version := s.variable("mysql-server_version")
	s.mu.Unlock()
	v.talk(version, s.admit, s.ask)
}

// talk greets who has connected, lets him in or not, and answers until he goes.
func (v *session) talk(version string, admit func(*session, greeting, []byte) *sqlError, answer func(*session, string) (*result, error)) {
	g, salt, err := v.wire.greet(v.id, version)
	if err != nil {
		return
	}
	if e := admit(v, g, salt); e != nil {
		_ = v.wire.fail(e)
		return
	}
	if v.wire.ok(0, "") != nil {
		return
	}
	for {
		b, err := v.wire.read()
		if err != nil || len(b) == 0 || b[0] == comQuit {
			return
		}
		switch b[0] {
		case comPing, comInitDB:
			err = v.wire.ok(0, "")
		case comQuery:
			err = v.reply(answer(v, string(b[1:])))
		default:
			err = v.wire.fail(denied("Command not supported"))
		}
		if err != nil {
			return
		}
	}
}

func (v *session) reply(r *result, err error) error {
	if err == nil {
		return v.wire.answer(r)
	}
	var told *sqlError
	if !errors.As(err, &told) {
		told = denied("%v", err)
	}
	return v.wire.fail(told)
}

// admit checks a login at the admin port.
func (s *server) admit(v *session, g greeting, salt []byte) *sqlError {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.user = g.user
	password, known := credential(s.variable("admin-admin_credentials"), g.user)
	if !known {
		password, known = credential(s.variable("admin-stats_credentials"), g.user)
		v.stats = known
	}
	if !known || !proves(g.proof, salt, password) {
		s.counts.refused++
		return refused(v, g)
	}
	if ip := net.ParseIP(v.from); local(g.user) && ip != nil && !ip.IsLoopback() {
		return &sqlError{1040, "42000", "User '" + g.user + "' can only connect locally"}
	}
	return nil
}

func refused(v *session, g greeting) *sqlError {
	used := "NO"
	if len(g.proof) > 0 {
		used = "YES"
	}
	return denied("ProxySQL Error: Access denied for user '%s'@'%s' (using password: %s)", g.user, v.from, used)
}

// credential finds a user in a list as "admin:secret;ops:other".
func credential(list, user string) (password string, known bool) {
	for pair := range strings.SplitSeq(list, ";") {
		if name, password, ok := strings.Cut(pair, ":"); ok && name == user {
			return password, true
		}
	}
	return "", false
}
