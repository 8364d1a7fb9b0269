package main

const guardianDir = "cmd/daemon/guardian/"

// guardianMutants have the guardian act for who needs it not, or not for who does.
func guardianMutants(add adder) {
	add("guardian-acts-for-a-backup", "the guardian of a dead daemon speaks for instances that hold no permit",
		replace(guardianDir+"judge.go", "case s.until == 0:", "case s.until == 0 && !gone:"))
	add("guardian-says-what-is-over", "the guardian sends a bow-out when a backup may have taken over",
		replace(guardianDir+"judge.go", "(gone || hangs) && now < s.until.Add(s.margin)", "gone || hangs"))
	add("guardian-bows-out-too-soon", "the guardian bids the backup take over though the addresses could not be taken off",
		replace(guardianDir+"act.go", "if d.failed = g.remover.Remove(removals...); d.failed == nil {", "if d.failed = g.remover.Remove(removals...); true {"))
	add("guardian-kills-hooks-for-good", "a daemon whose hooks the guardian has killed can never start another one",
		replace(guardianDir+"cgroup.go", "\tif c.file == nil {\n\t\treturn false\n\t}\n\tended :=", "\tif c.file != nil {\n\t\treturn c.kill()\n\t}\n\tended :="))
	add("guardian-beside-the-loop", "a loop that renews a permit in the moment in which the guardian acts goes on as master",
		replace(guardianDir+"ward.go", "return was != int64(taken) && until.CompareAndSwap(was, int64(p.Until))", "until.Store(int64(p.Until))\n\treturn was >= 0"))
	add("guardian-bow-out-stale", "after a stall the counter is below that of the bow-outs which may have been sent",
		replace("carp/bowouts.go", "func (e *Engine) skipReserved() { e.clock = max(e.clock, e.reserved) }", "func (e *Engine) skipReserved() {}"))
}
