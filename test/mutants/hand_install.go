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
}
