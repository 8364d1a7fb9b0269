// Package proxysqlstub is a stand-in for ProxySQL 2.7.1, which is in no registry: its
// admin port and its port for clients over real SQLite databases, with the answers, errors
// and vices of the real one.
//
// # Use
//
// The program is the test binary under the name proxysql. TestMain calls Enter first:
//
//	func TestMain(m *testing.M) { proxysqlstub.Enter(); lab.Main(m) }
//
//	n := proxysqlstub.New(t, lan.Host("a", "192.0.2.1/24"), proxysqlstub.Options{Database: file})
//	n.Start()                            // or whoever plays the service manager: n.Program(), n.Args()
//	db := n.Admin("ops", "made-up-ops")  // the admin port
//	n.Backends(map[string]proxysqlstub.Backend{"db2.orders.example:3306": {ReadOnly: true}})
//	n.Fault("save-gap", "200ms")
//
// Package program is the same by itself, to be tried by hand. A node may also run on
// no host, with ports of its own by Options.Admin and Options.Client. All processes of a
// node end with the test, even if that is killed.
//
// # What is as in ProxySQL
//
// The three layers, disk, memory and runtime, with LOAD and SAVE between them for each
// module. A SAVE is a DELETE and an INSERT for each table, each a transaction of its own;
// one mutex serialises all statements; on a locked database it waits with that mutex held, so
// that a reader outside freezes the admin port. What goes wrong on disk is answered with OK
// and logged. PROXYSQL FLUSH CONFIGDB opens whatever lies there. VACUUM disk INTO.
//
// A start compares the CREATE text of each table, brings known older ones up to date,
// drops others without a word, and adds missing variables: damaged files end as with
// ProxySQL because SQLite says the same of them. The program answers before the database
// is opened; an angel starts a worker that crashed after 2, 4, 8, 16, 32 s and then
// gives up; the PID file is the angel's, and the worker outlives it; both ports are opened
// with SO_REUSEPORT; an address that is not there costs a line in the log. The port for
// clients opens first, the monitor asks 200 ms later, the admin port opens after 500 ms.
//
// The monitor moves servers of replication hostgroups in the runtime only, and writes its
// logs. A client is answered in the name of the server that its user's hostgroup has:
// SELECT @@hostname says which one.
//
// # What is not
//
//   - No backend is connected to: what the monitor finds is what a test says, without that
//     each server is well and as configured. Members of Galera and replication groups are
//     asked, never moved.
//   - Checksums have ProxySQL's form and change when they should; their values differ.
//   - ProxySQL's own cluster: peers are listed as never reached, nothing is pulled. What
//     a pull does to the file is the fault save-unlocked.
//   - TLS, prepared statements for clients, caching_sha2_password, query rules, query
//     cache, SELECT CONFIG INTO OUTFILE, PROXYSQL STOP and START, ClickHouse, LDAP.
//   - Interfaces of the admin port are read at a start only.
//   - An abort is exit code 134, and no signal; a zombie does not count as a daemon that
//     runs.
package proxysqlstub
