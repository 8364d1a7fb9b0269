package mysql

import (
	"fmt"
	"strconv"
	"strings"
)

// dialect is how a server of a version is spoken to. It is a table of words: which words
// are right is found by the version, never by trying a statement that changes something.
type dialect struct {
	name  string // as an operator knows it
	maria bool   // GTIDs are DOMAIN-SERVER-SEQUENCE, there is no super_read_only

	status    string // the replication of this server, one row a source
	startSQL  string
	startIO   string
	startBoth string
	stopIO    string
	stopBoth  string
	reset     string // forgets source and relay log
	fields    fields
	change    changeWords
	passesOn  string // the variable that says that a replica logs what it applies
}

// fields are the columns of dialect.status.
type fields struct {
	host, port, io, sql, behind string
}

// changeWords are those of pointing a replica at its source.
type changeWords struct {
	command   string
	prefix    string // of the options
	gtid      string // the option that follows by GTID
	publicKey string // the option for a login without TLS; "" if not needed
	retries   bool   // the number of tries can be given, and its default is small
}

// version is the number of a server's release.
type version [3]int

func (v version) before(o version) bool {
	for i := range v {
		if v[i] != o[i] {
			return v[i] < o[i]
		}
	}
	return false
}

// parseVersion reads @@version: "8.0.36", "10.11.6-MariaDB-log", "5.5.5-10.11.6-MariaDB".
func parseVersion(text string) (v version, maria bool, err error) {
	maria = strings.Contains(strings.ToLower(text), "mariadb")
	number := text
	if maria {
		number = strings.TrimPrefix(number, "5.5.5-") // told to old clients
	}
	number, _, _ = strings.Cut(number, "-")
	parts := strings.Split(number, ".")
	if len(parts) < 3 {
		return v, maria, fmt.Errorf("version %q: not understood", text)
	}
	for i := range v {
		if v[i], err = strconv.Atoi(parts[i]); err != nil {
			return v, maria, fmt.Errorf("version %q: not understood", text)
		}
	}
	return v, maria, nil
}

// dialectOf chooses by @@version.
func dialectOf(text string) (dialect, error) {
	v, maria, err := parseVersion(text)
	switch {
	case err != nil:
		return dialect{}, err
	case maria && v.before(version{10, 5, 2}):
		return dialect{}, fmt.Errorf("MariaDB %s: too old: use 10.5.2 or newer, which has the privileges that bound this", text)
	case maria:
		return mariaDB("MariaDB " + text), nil
	case v.before(version{5, 7, 6}):
		return dialect{}, fmt.Errorf("MySQL %s: too old: use 5.7.6 or newer, which has super_read_only and GTIDs", text)
	}
	return mySQL("MySQL "+text, v), nil
}

func oldFields() fields {
	return fields{"Master_Host", "Master_Port", "Slave_IO_Running", "Slave_SQL_Running", "Seconds_Behind_Master"}
}

func mariaDB(name string) dialect {
	d := dialect{name: name, maria: true, status: "SHOW ALL SLAVES STATUS", fields: oldFields(), passesOn: "log_slave_updates"}
	d.words("SLAVE")
	d.change = changeWords{command: "CHANGE MASTER TO", prefix: "MASTER_", gtid: "MASTER_USE_GTID = slave_pos"}
	return d
}

func mySQL(name string, v version) dialect {
	d := dialect{name: name, status: "SHOW SLAVE STATUS", fields: oldFields(), passesOn: "log_slave_updates"}
	d.words("SLAVE")
	d.change = changeWords{command: "CHANGE MASTER TO", prefix: "MASTER_", gtid: "MASTER_AUTO_POSITION = 1"}
	if !v.before(version{8, 0, 4}) { // caching_sha2_password is the default
		d.change.publicKey = "GET_MASTER_PUBLIC_KEY = 1"
	}
	if !v.before(version{8, 0, 22}) {
		d.status = "SHOW REPLICA STATUS"
		d.fields = fields{"Source_Host", "Source_Port", "Replica_IO_Running", "Replica_SQL_Running", "Seconds_Behind_Source"}
		d.words("REPLICA")
	}
	if !v.before(version{8, 0, 23}) {
		d.change = changeWords{"CHANGE REPLICATION SOURCE TO", "SOURCE_", "SOURCE_AUTO_POSITION = 1", "GET_SOURCE_PUBLIC_KEY = 1", true}
	}
	if !v.before(version{8, 0, 26}) {
		d.passesOn = "log_replica_updates"
	}
	return d
}

// words sets the commands that differ by one word.
func (d *dialect) words(replica string) {
	d.startSQL = "START " + replica + " SQL_THREAD"
	d.startIO = "START " + replica + " IO_THREAD"
	d.startBoth = "START " + replica
	d.stopIO = "STOP " + replica + " IO_THREAD"
	d.stopBoth = "STOP " + replica
	d.reset = "RESET " + replica + " ALL"
}

// readOnly keeps everybody out; with MariaDB all but those with READ ONLY ADMIN.
func (d *dialect) readOnly() string {
	if d.maria {
		return "SET GLOBAL read_only = 1"
	}
	return "SET GLOBAL super_read_only = 1" // read_only with it
}

// privileged lets accounts with privileges write where others may not yet: what belongs
// to a promotion, before anybody else can. "" where they always can.
func (d *dialect) privileged() string {
	if d.maria {
		return ""
	}
	return "SET GLOBAL super_read_only = 0"
}

// source says where a replica gets its data from.
type source struct {
	host     string
	port     uint16
	user     string
	password string
	ca       string // file that the source's certificate is checked against; "": no TLS
}

// retryPause is between two tries of a replica to reach its source, in seconds: the
// servers' default of a minute is longer than a promotion may take.
const retryPause = 1

// changeSource is the statement that points a replica at its source. It holds the password.
func (d *dialect) changeSource(s source) string {
	p := d.change.prefix
	options := []string{
		p + "HOST = " + quote(s.host),
		p + "PORT = " + strconv.Itoa(int(s.port)),
		p + "USER = " + quote(s.user),
		p + "PASSWORD = " + quote(s.password),
		p + "CONNECT_RETRY = " + strconv.Itoa(retryPause),
		d.change.gtid,
	}
	if d.change.retries {
		options = append(options, p+"RETRY_COUNT = 86400") // 8.4 gives up after 10
	}
	switch {
	case s.ca != "":
		options = append(options, p+"SSL = 1", p+"SSL_CA = "+quote(s.ca), p+"SSL_VERIFY_SERVER_CERT = 1")
	case d.change.publicKey != "":
		options = append(options, d.change.publicKey)
	}
	return d.change.command + " " + strings.Join(options, ", ")
}

// quote writes a text as a literal: sessions have the mode in which a backslash is one.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// parse reads what the server says of its GTIDs.
func (d *dialect) parse(text string) (gtids, error) {
	if d.maria {
		return parseMariaDB(text, false)
	}
	return parseMySQL(text)
}

// parsePosition reads how far a replica is: received or applied.
func (d *dialect) parsePosition(text string) (gtids, error) {
	if d.maria {
		return parseMariaDB(text, true)
	}
	return parseMySQL(text)
}
