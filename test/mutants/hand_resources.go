package main

// resourceMutants move resources in the wrong order, or believe what they are told.
func resourceMutants(add adder) {
	const (
		promote = "hooks/promote.go"
		journal = "hooks/journal.go"
		band    = "cmd/daemon/band.go"
		wiring  = "cmd/daemon/health.go"
	)
	add("released-before-demotion", "a node that lets go bows out before its resources are demoted",
		replace(instance, "\t\treturn i.letGo(ctx, t)\n\t}\n\ti.speaker.Released", "\t\treturn nil\n\t}\n\ti.speaker.Released"))
	add("failed-gate-keeps-resources", "a node that could not promote all keeps what it has promoted",
		replace(instance, "held := errors.Join(downErr, i.letGo(ctx, t))", "held := downErr"))
	add("bow-out-while-held", "a node that can neither promote nor demote calls another one in",
		replace(instance, "return errors.Join(err, held, carp.ErrHeld)", "return errors.Join(err, held)"))
	add("bow-out-for-the-dead", "the guardian bows out for a dead daemon that held a resource",
		replace("cmd/daemon/guard.go", "if i.plan.Load().carp.Resources > 0 {", "if false {"))
	add("election-before-settling", "a node stands for election with what an earlier run left promoted",
		replace(engine, "|| e.stopped || !e.ready:", "|| e.stopped:"))
	add("exit-believed", "a resource that says it is promoted is not looked at",
		replace(promote, "case report.Role != want:", "case report.Role != want && false:"))
	add("old-epoch-promotes", "a resource is promoted with an older epoch than before",
		replace(promote, "ev.Epoch < past {", "ev.Epoch < past && false {"))
	add("no-return-without-permit", "a step without return is taken though the permit has ended",
		replace(promote, "if !final || r.o.Permit == nil {", "if true {"))
	add("no-return-outlives-its-permit", "a step without return that is under way goes on when the permit ends",
		replace("hooks/permit.go", "if !t.held.Load() {", "if true {"))
	add("settled-blindly", "what a journal that cannot be read has said counts as nothing",
		replace(promote, "if err := j.Open(); err != nil {\n\t\t\treturn err", "if err := j.Open(); err != nil {\n\t\t\treturn nil"))
	add("preempts-a-holder", "a group with resources may be preempted by an advert",
		replace("cmd/daemon/plan.go", "\tcase p.Preempt:\n", "\tcase p.Preempt && false:\n"))
	add("gate-of-another-mastership", "the gate is not run again in the next mastership if the down between was passed over",
		replace(instance, "if i.left.Swap(false) || t.From != carp.Master {", "if false {"))
	add("contest-unnoticed", "what follows from a contest is not what is configured",
		replace(instance, "t.From == carp.Master && i.passed &&", "false &&"))
	add("cancelled-demotion-believed", "a cancelled demotion that says it is done is believed without a look",
		replace(promote, "case blind != nil:", "case blind != nil && ctx.Err() == nil:"), replace(promote, "case report.Role != want:", "case report.Role != want && ctx.Err() == nil:"))
	add("damage-taken-for-a-crash", "a journal that is damaged in the middle is cut off there",
		replace(journal, "errors.Is(err, errDamaged) && len(rest) == 0 {", "errors.Is(err, errDamaged) {"))
	add("demoted-again-for-a-record", "a demotion that worked is repeated because its end could not be recorded",
		replace(promote, "if a == Demotion && err == nil {", "if false {"))
	add("owed-after-a-promotion", "the end of a demotion is recorded behind the promotion that followed",
		replace(journal, "delete(j.owed, e.Resource)", "_ = 0"))
	add("journal-shared", "two processes write one journal",
		replace(journal, "syscall.LOCK_EX|syscall.LOCK_NB", "syscall.LOCK_SH|syscall.LOCK_NB"))
	add("stuck-for-good", "what could not be let go once stays, though what held it is gone",
		replace(instance, "if t.To == carp.Backup {\n\t\terr = errors.Join(err, i.letGoLater", "if false {\n\t\terr = errors.Join(err, i.letGoLater"))
	add("demotion-begun-anew", "the end of the release budget cancels the demotion, which is begun from its beginning",
		replace("cmd/daemon/resources.go", "\t\treturn ctx.Err()\n\t}\n}\n\n// endDemotion", "\t\ti.endDemotion()\n\t\treturn ctx.Err()\n\t}\n}\n\n// endDemotion"))
	add("demotes-in-a-mastership", "a demotion that goes on is not ended when the node is elected again",
		replace(instance, "\ti.endDemotion()\n\tp := i.plan.Load()", "\tp := i.plan.Load()"))
	add("group-not-whole", "an address of a group comes up before all are elected",
		replace(band, "return !slices.ContainsFunc(b.members, func(s *standing) bool { return !s.ready })", "return true"))
	add("group-stays", "an instance keeps the role when another one of its group leaves",
		replace(band, "b.tell(func() { o.resign(why) })", "b.tell(func() { _ = why })"))
	add("group-demoted-early", "the resource of a group is demoted while addresses are on",
		replace(band, "off := over || !slices", "off := over || true || !slices"))
	add("mismatch-unseen", "a resource in the wrong role is no alarm",
		replace(wiring, "i.d.book.set(v.Apart,", "i.d.book.set(false && v.Apart,"))
	add("elected-together", "two backups that are elected at one instant both take the resource",
		replace(engine, "blind := why == ReasonOwner || e.cfg.Resources > 0 && together", "_ = together\n\tblind := why == ReasonOwner"))
}
