package main

// installMutants put in place what should not be there, or lose what was.
func installMutants(add adder) {
	const (
		installing = "replicator/install/install.go"
		putting    = "replicator/install/put.go"
	)
	add("installed-unverified", "the copy of a snapshot is put in place whatever is in it",
		replace(installing, "if verdict, err := judge(ctx, fresh, options); err != nil || !verdict.Sound() {", "if verdict, err := judge(ctx, fresh, options); err != nil || !verdict.Sound() && false {"))
	add("journal-stays", "a journal of the old database is left beside the new one",
		replace(putting, "if err := remove(p.c.Database + suffix); err != nil {", "if err := remove(p.c.Database + suffix + \"x\"); err != nil {"))
	add("torn-finished", "a repair puts in place a copy that is torn",
		replace(putting, "if sum == in.SHA256 {", "if sum != \"\" {"))
	add("journal-lost", "a repair that takes back leaves the old database without its journal",
		replace(putting, "*identityOf(info) == *in.Present {", "*identityOf(info) == *in.Present && false {"))
	add("in-use-replaced", "a database that a program has open is replaced",
		replace(putting, "if holders := Holders(p.c.Database); len(holders) > 0 {\n\t\treturn fmt.Errorf(\"%w: %s: stop it first\", ErrInUse, strings.Join(holders, \", \"))\n\t}\n\tsum, err", "sum, err"))
	restoreMutants(add)
}

// restoreMutants let something serve that should not.
func restoreMutants(add adder) {
	const (
		serving   = "hooks/database/database.go"
		restoring = "hooks/proxysql/restore.go"
		readiness = "hooks/proxysql/ready.go"
	)
	add("newer-overwritten", "a snapshot is put over the database that it was taken of, which has gone on since",
		replace(serving, "return node >= m.Version.Node && node != 0", "return false"))
	add("service-replaced", "a database in service is replaced when it is promoted again",
		replace(serving, "if d.inside.Load() && running {", "if d.inside.Load() && running && false {"), replace(serving, "return served > m.Version.Epoch", "return false"))
	add("old-kept", "the present database serves although snapshots were in service here and are gone",
		replace(serving, "return err == nil && len(away) == 0 && d.isOurs(s)", "return err == nil && len(away) == 0"))
	add("machine-blamed", "an older database is put in place when the program runs and is slow",
		replace(serving, "if e != nil || running {", "if e != nil || running && false {"))
	add("arrival-lost", "a snapshot that arrives during a promotion is not looked at",
		replace(serving, "err != nil || after.Compare(before) <= 0 {", "err != nil || after.Compare(before) >= 0 {"))
	add("save-believed", "that a SAVE is answered with OK is enough",
		replace(restoring, "if n > 0 {", "if n < 0 {"))
	add("identity-travels", "the interfaces of another node are taken over",
		replace(restoring, "!strings.HasPrefix(name, prefix) || r.isLocal(name)", "!strings.HasPrefix(name, prefix)"))
	add("monitor-not-awaited", "clients are let in before the monitor has looked at the servers",
		replace(readiness, "if len(left) > 0 {", "if len(left) < 0 {"))
}
