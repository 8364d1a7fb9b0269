package main

// moduleMutants lose or revert changes on many nodes.
func moduleMutants(add adder) {
	const (
		stamps = "replicator/modules/stamp.go"
		judge  = "replicator/modules/module.go"
		pull   = "replicator/modules/pull.go"
		core   = "replicator/modules/core.go"
	)
	add("module-clock-alone", "a change is stamped by the clock alone, which another node's may be ahead of",
		replace(judge, "c.seen = max(c.seen+1, min(uint64(max(now.UnixMilli(), 0)), maxEpoch/2))", "c.seen = min(uint64(max(now.UnixMilli(), 0)), maxEpoch/2)"))
	add("module-fresh-source", "a fresh holder begins though others may lose something",
		replace(judge, "m.settled(now, c.cfg.Settle) && c.nobodyLoses(m)", "m.settled(now, c.cfg.Settle)"))
	add("module-emptied", "the holder's change may empty a guarded table",
		replace(judge, "if len(empty) > 0 && !m.allow {", "if len(empty) > 0 && !m.allow && false {"))
	add("module-emptied-here", "what arrives may empty a guarded table",
		replace(pull, "s.Filled, msg.Meta.Allowed); len(empty) > 0 && !m.allow {", "s.Filled, msg.Meta.Allowed); len(empty) > 0 && !m.allow && false {"))
	add("module-sum-believed", "the checksum of what arrived is not computed anew",
		replace(pull, "if s.Sum != msg.Meta.Stamp.Sum {\n\t\tc.event", "if s.Sum != msg.Meta.Stamp.Sum && false {\n\t\tc.event"))
	add("module-not-read-back", "a database is believed to hold what was written to it",
		replace(pull, "if s.Sum != t.meta.Stamp.Sum {", "if s.Sum != t.meta.Stamp.Sum && false {"))
	add("module-holder-deaf", "a new holder stamps before it has heard its neighbours",
		replace(core, "c.holding != 0 && len(c.unasked) == 0", "c.holding != 0"))
	add("module-anybody-stamps", "a change at any node is a change of the cluster",
		replace(judge, "case c.holding != 0 && !m.look.Found:\n\t\tif c.mayStamp()", "case !m.look.Found:\n\t\tif true"))
	add("module-found", "what a restarted program found on its disk is a change of the holder",
		replace(judge, "case c.holding != 0 && !m.look.Found:", "case c.holding != 0:"))
	add("module-waits-for-ever", "a holder waits for ever for a state that nobody holds",
		replace(judge, "case newer && c.abandoned(now, m):", "case newer && c.abandoned(now, m) && false:"))
	add("module-tie", "two stamps with the same clock are equal: nobody takes the other's",
		replace(stamps, "return cmp.Or(cmp.Compare(s.Term, o.Term), cmp.Compare(s.Epoch, o.Epoch), cmp.Compare(s.Node, o.Node),\n\t\tcmp.Compare(s.Version, o.Version), bytes.Compare(s.Sum[:], o.Sum[:]))", "_ = bytes.Compare\n\treturn cmp.Compare(s.Epoch, o.Epoch)"))
	add("module-clock-first", "of two holders the one whose clock is ahead wins, not the later",
		replace(stamps, "cmp.Or(cmp.Compare(s.Term, o.Term), cmp.Compare(s.Epoch, o.Epoch),", "cmp.Or(cmp.Compare(s.Epoch, o.Epoch), cmp.Compare(s.Term, o.Term),"))
	add("module-absurd", "a clock that cannot be is believed, and leaves no later one",
		replace(stamps, "return uint64(n) <= uint64(max(now.UnixMilli(), 0))+century", "return true"))
	add("module-half", "a change is stamped at first sight",
		replace(judge, "return m.change.looks >= looks ||", "return m.change.looks >= 1 ||"))
}
