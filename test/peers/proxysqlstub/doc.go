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
//	n.Start()                                  // or whoever plays the service manager: n.Program(), n.Args()
//	db := n.Admin("ops", "made-up-ops")        // the admin port
//	n.Backends(map[string]proxysqlstub.Backend{"db2.orders.example:3306": {ReadOnly: false}})
//	n.Fault("save-gap", "200ms")
package proxysqlstub
