package main

// mysqlMutants lose data of a database, or let two of them be written to.
func mysqlMutants(add adder) {
	const dir = "hooks/mysql/"
	add("mysql-both-threads", "a replica stops both threads before it has applied what it received",
		replace(dir+"drain.go", "if err := e.exec(ctx, e.d.stopIO); err != nil {\n\t\treturn err\n\t}\n\tif err := db.apply", "if err := e.exec(ctx, e.d.stopBoth); err != nil {\n\t\treturn err\n\t}\n\tif err := e.exec(ctx, e.d.startSQL); err != nil {\n\t\treturn err\n\t}\n\tif err := db.apply"))
	add("mysql-received-unapplied", "a replica is promoted without what it received and did not apply",
		replace(dir+"drain.go", "\t\tmissing := s.pending()\n", "\t\tmissing := gtids{}\n"))
	add("mysql-diverged-rejoins", "a server with transactions of its own becomes a replica",
		replace(dir+"rejoin.go", "\tmore := extra(s.executed, to.state.executed)\n", "\tmore := gtids{}\n"))
	add("mysql-connections-live", "an administrator's open transaction is committed after the demotion",
		replace(dir+"fence.go", "if err := e.empty(ctx); err != nil {", "if err := ctx.Err(); err != nil {"))
	add("mysql-not-fenced", "a primary that lives is not made read-only before another one is promoted",
		replace(dir+"peers.go", "if v.role() != hooks.RoleDemoted {", "if v.role() == hooks.RoleUnknown {"))
	add("mysql-unbounded-read-only", "read_only waits for whoever holds a lock",
		replace(dir+"session.go", ", lock_wait_timeout = 1\"", ", lock_wait_timeout = 3600\""))
	add("mysql-denied-is-absent", "a primary that does not let carpd in counts as dead",
		replace(dir+"peers.go", "case absent(v.err):", "case v.err != nil:"))
	add("mysql-half-the-tail", "a planned switch does not wait for the old primary's last transactions",
		replace(dir+"drain.go", "return extra(from.state.executed, s.executed), nil", "return nil, nil"))
}
