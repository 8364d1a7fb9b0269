package proxysqlstub

import (
	"strconv"
	"strings"
	"time"
)

// refreshStats fills the tables of statistics that a statement names.
func (s *server) refreshStats(text string) {
	for table, fill := range map[string]func(){
		"stats_mysql_global":          s.fillGlobal,
		"stats_mysql_users":           s.fillUsers,
		"stats_mysql_connection_pool": s.fillPool,
		"stats_mysql_processlist":     s.fillProcesses,
		"stats_proxysql_servers_":     s.fillPeers,
	} {
		if strings.Contains(text, table) {
			fill()
		}
	}
}

func (s *server) fillGlobal() {
	s.ran(s.main.exec("DELETE FROM stats.stats_mysql_global"))
	clients := 0
	for _, v := range s.sessions {
		if v.client {
			clients++
		}
	}
	for name, value := range map[string]string{
		"ProxySQL_Uptime":              strconv.Itoa(int(time.Since(s.started).Seconds())),
		"mysql_listener_paused":        strconv.FormatBool(len(s.clients) == 0),
		"Client_Connections_connected": strconv.Itoa(clients),
		"Client_Connections_created":   strconv.Itoa(s.counts.created),
		"Client_Connections_aborted":   strconv.Itoa(s.counts.refused),
		"Questions":                    strconv.Itoa(s.counts.queries),
	} {
		s.ran(s.main.exec("INSERT INTO stats.stats_mysql_global VALUES (%s, %s)", quote(name), quote(value)))
	}
}

func (s *server) fillUsers() {
	s.ran(s.main.exec("DELETE FROM stats.stats_mysql_users"))
	s.ran(s.main.exec("INSERT INTO stats.stats_mysql_users SELECT username, 0, max_connections FROM temp.%smysql_users WHERE frontend = 1", loaded))
	for _, v := range s.sessions {
		if v.client {
			s.ran(s.main.exec("UPDATE stats.stats_mysql_users SET frontend_connections = frontend_connections + 1 WHERE username = %s", quote(v.user)))
		}
	}
}

func (s *server) fillPool() {
	s.ran(s.main.exec("DELETE FROM stats.stats_mysql_connection_pool"))
	s.ran(s.main.exec("INSERT INTO stats.stats_mysql_connection_pool SELECT hostgroup_id, hostname, port, status, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM temp.%smysql_servers", loaded))
}

func (s *server) fillProcesses() {
	s.ran(s.main.exec("DELETE FROM stats.stats_mysql_processlist"))
	for _, v := range s.sessions {
		if v.client && v.user != "" {
			s.ran(s.main.exec("INSERT INTO stats.stats_mysql_processlist (ThreadID, SessionID, user, db, cli_host, hostgroup, command, time_ms) VALUES (0, %d, %s, '', %s, %s, 'Sleep', 0)",
				v.id, quote(v.user), quote(v.from), quote(v.hostgroup)))
		}
	}
}

// fillPeers lists the other nodes as ones that were never reached: the stand-in asks
// nobody.
func (s *server) fillPeers() {
	peers := "temp." + loaded + "proxysql_servers"
	s.ran(s.main.exec("DELETE FROM stats.stats_proxysql_servers_checksums"))
	s.ran(s.main.exec("DELETE FROM stats.stats_proxysql_servers_metrics"))
	s.ran(s.main.exec("DELETE FROM stats.stats_proxysql_servers_status"))
	for _, name := range sumNames() {
		s.ran(s.main.exec("INSERT INTO stats.stats_proxysql_servers_checksums SELECT hostname, port, %s, 0, 0, '', 0, 0, 0 FROM %s", quote(name), peers))
	}
	s.ran(s.main.exec("INSERT INTO stats.stats_proxysql_servers_metrics SELECT hostname, port, weight, comment, 0, 0, 0, 0, 0, 0 FROM %s", peers))
	s.ran(s.main.exec("INSERT INTO stats.stats_proxysql_servers_status SELECT hostname, port, weight, 'NO', 0, 0, 0, 0, 0 FROM %s", peers))
}
