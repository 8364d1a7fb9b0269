package proxysqlstub_test

import (
	"testing"

	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

// TestThreeLayersAreApart walks a change from memory to the runtime and to disk, and back.
func TestThreeLayersAreApart(t *testing.T) {
	t.Parallel()
	n, db := started(t, host(t), proxysqlstub.Options{})
	const (
		inMemory  = "SELECT count(*) FROM mysql_users"
		inRuntime = "SELECT count(*) FROM runtime_mysql_users"
		onDisk    = "SELECT count(*) FROM disk.mysql_users"
		version   = "SELECT version FROM runtime_checksums_values WHERE name='mysql_users'"
	)
	same(t, db, inMemory, "7")
	same(t, db, inRuntime, "12") // each active one twice
	same(t, db, onDisk, "7")
	same(t, db, version, "1")
	checksum := value(t, db, "SELECT GLOBAL_CHECKSUM()")

	run(t, db, "INSERT INTO mysql_users (username, password) VALUES ('new', 'secret')")
	same(t, db, inMemory, "8")
	same(t, db, inRuntime, "12")
	run(t, db, "load  mysql users to runtime ;")
	same(t, db, inRuntime, "14")
	same(t, db, version, "2")
	if value(t, db, "SELECT GLOBAL_CHECKSUM()") == checksum {
		t.Error("the global checksum is the same after a LOAD TO RUNTIME")
	}
	same(t, db, onDisk, "7")

	n.Kill() // what is not saved is lost
	n.Start()
	same(t, db, inMemory, "7")
	same(t, db, version, "1")

	run(t, db, "DELETE FROM mysql_users WHERE username='reporting'", "SAVE MYSQL USERS TO DISK", "LOAD MYSQL USERS TO RUNTIME", "DELETE FROM mysql_users")
	same(t, db, onDisk, "6")
	run(t, db, "SAVE MYSQL USERS TO MEMORY") // the inactive one does not come back
	same(t, db, inMemory, "5")
	run(t, db, "LOAD MYSQL USERS FROM DISK")
	same(t, db, inMemory, "6")
	run(t, db, "DELETE FROM mysql_users", "LOAD MYSQL USERS TO RUNTIME")
	same(t, db, "SELECT checksum FROM runtime_checksums_values WHERE name='mysql_users'", "0x0000000000000000")
}
