package main

// replicationMutants ship when they should not, show what they should not, or hide that
// role and state do not agree.
func replicationMutants(add adder) {
	const (
		replica    = "cmd/daemon/replica.go"
		alarms     = "cmd/daemon/replica_status.go"
		difference = "replicator/difference.go"
		diff       = "replicator/sqlite/diff.go"
		sample     = "cmd/daemon/metrics/sample.go"
		restoring  = "hooks/restore.go"
	)
	add("standby-takes-snapshots", "a node that does not serve takes and ships snapshots",
		replace(replica, "epoch, _ := r.want()\n\t\tone,", "epoch, _ := r.want()\n\t\tepoch = max(epoch, 1)\n\t\tone,"))
	add("rest-is-not-awaited", "a resource is let go while a snapshot of it is taken",
		replace(replica, "if running == 0 {\n\t\t\treturn", "if running >= 0 {\n\t\t\treturn"))
	add("late-end-ends-the-next", "the end of a mastership that is told late ends the replication of the next",
		replace(replica, "if i.serving.epoch <= epoch {", "if i.serving.epoch <= epoch || epoch > 0 {"))
	add("restored-and-lost", "a promotion puts the newest snapshot over what an operator restored",
		replace("cmd/daemon/restore.go", "case serving == 0:\n\t\treturn nil", "case serving >= 0:\n\t\treturn nil"))
	add("change-restarts-nothing", "a reload leaves a changed replication as it was",
		replace(replica, "return r.plan.Equal(p)", "return r.plan.Name == p.Name"))
	add("age-is-no-alarm", "nobody is told that a takeover would lose changes",
		replace(alarms, "s.AgeMS > after.Milliseconds(), \"snapshot-age-\"", "s.AgeMS < 0, \"snapshot-age-\""))
	add("password-in-diff", "the difference of two snapshots shows passwords",
		replace(difference, "if row || column ||", "if row || column && false ||"))
	add("variable-in-diff", "the difference of two snapshots shows variables that are passwords",
		replace(difference, "row = row || speaksOfSecret(k.Before+k.After)", "row = row || speaksOfSecret(k.Column)"))
	add("diff-by-collation", "a difference that the collation does not see is not seen",
		replace(diff, "unequal = append(unequal, exact(\"x\", c)+\" <> \"+exact(\"y\", c))", "unequal = append(unequal, \"x.\"+quote(c)+\" IS NOT y.\"+quote(c))"))
	add("opposite-role-unseen", "a resource that is promoted on a backup is no mismatch",
		replace(sample, "return role == hooks.RolePromoted.String()", "return false"))
	add("look-beside-restore", "a resource is looked at while it is restored",
		replace(restoring, "if err := s.seize(ctx); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tdefer func() { <-s.busy }()\n", ""))
}
