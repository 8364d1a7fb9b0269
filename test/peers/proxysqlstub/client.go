package proxysqlstub

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// talkClient is a connection to the port for clients.
func (s *server) talkClient(v *session) {
	s.mu.Lock()
	v.client = true
	s.counts.created++
	version := s.variable("mysql-server_version")
	s.mu.Unlock()
	v.talk(version, s.admitClient, s.route)
}

// admitClient checks the login of a user that runs.
func (s *server) admitClient(v *session, g greeting, salt []byte) *sqlError {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := "FROM temp." + loaded + "mysql_users WHERE frontend = 1 AND username = " + quote(g.user)
	v.hostgroup = s.main.value("SELECT default_hostgroup %s", from)
	password := s.main.value("SELECT password %s", from)
	// The form of caching_sha2_password is no answer to a proof of the native one.
	if v.hostgroup == "" || strings.HasPrefix(password, "$A$") || !proves(g.proof, salt, password) {
		s.counts.refused++
		return refused(v, g)
	}
	v.user = g.user
	return nil
}

// route answers a statement of a client in the name of the backend that it would go to:
// the ONLINE server of its user's hostgroup with the most weight. SELECT @@hostname says
// which one, SELECT of a number is that, and all others are OK. Without such a server a
// client waits for mysql-connect_timeout_server_max.
func (s *server) route(v *session, text string) (*result, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	for {
		s.mu.Lock()
		limit, _ := strconv.Atoi(s.variable("mysql-connect_timeout_server_max")) // 0: at once
		at := s.main.value("SELECT hostname || ':' || port FROM temp.%smysql_servers WHERE status = 'ONLINE' AND hostgroup_id = %s ORDER BY weight DESC, hostname, port LIMIT 1", loaded, v.hostgroup)
		s.mu.Unlock()
		if at != "" {
			return backend(at, text), nil
		}
		if spent := time.Since(begin); spent >= time.Duration(limit)*time.Millisecond {
			return nil, &sqlError{9001, "HY000", fmt.Sprintf("Max connect timeout reached while reaching hostgroup %s after %dms", v.hostgroup, spent.Milliseconds())}
		}
		<-tick.C
	}
}

// backend is the answer of a server that is not there.
func backend(at, text string) *result {
	text = strings.ToUpper(strings.Join(strings.Fields(strings.TrimRight(text, "; \n")), " "))
	what, ok := strings.CutPrefix(text, "SELECT ")
	if !ok {
		return &result{}
	}
	value := what
	if _, err := strconv.Atoi(what); err != nil {
		value = map[string]string{"@@HOSTNAME": at, "@@MAX_ALLOWED_PACKET": "67108864"}[what]
	}
	return &result{columns: []string{strings.ToLower(what)}, rows: [][]*string{{&value}}}
}
