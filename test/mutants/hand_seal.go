package main

const (
	sealFile   = "carp/seal.go"
	windowFile = "carp/window.go"
	replayFile = "carp/replay.go"
	movesFile  = "carp/handover.go"
)

// sealMutants let recordings in, or keep a living node out.
func sealMutants(add adder) {
	add("sealed-timing-open", "a sealed advert may say another weight than its counter",
		replace(sealFile, "case s.timing != header:\n\t\treturn DropTiming\n\t}", "}"))
	add("sealed-twice", "a sealed advert is accepted as often as it comes",
		replace(sealFile, "floor = max(floor, known.clock)", "_ = known.clock"))
	add("sealed-floor-forgotten", "a node that starts accepts what it had accepted in an earlier run",
		replace(replayFile, "floor, twin := g.clock.start, s.id == e.cfg.NodeID", "floor, twin := uint64(0), s.id == e.cfg.NodeID"))
	add("no-probe", "a backup does not ask before it takes over from a master that it had refused",
		replace(replayFile, "g.waiting = true\n\te.ask(now)", "g.waiting = true"))
	add("probe-for-ever", "recordings put a takeover off again and again",
		replace(replayFile, "if g.waiting || !e.sealedGroup()", "if !e.sealedGroup()"))
	add("any-answer", "an answer to another question proves that a master lives",
		replace(replayFile, "binary.BigEndian.Uint64(h.message.Body) == g.asked && ", ""))
	add("probe-starved", "recordings of probes use up the answers of a node that lives",
		replace(replayFile, "if !latest { //", "if latest = false; !latest { //"))
	add("message-permits", "what is no advert extends a permit",
		replace("carp/send.go", "if claimed && (e.state", "if _ = claimed; (e.state"))
	add("held-back-misses", "a master lets go for a backup that cannot take the role",
		replace("carp/handover.go", "dead >= e.timers[timerHold] && ", ""))
	add("clock-steps-for-recordings", "an advert takes the group clock any distance ahead",
		replace(sealFile, "return g.anchored(now) && clock", "return g.anchored(now) && clock < 0 && clock"))
	add("companions-unchecked", "recorded peer states and handover messages are taken",
		replace(replayFile, "d := e.checkSealed(now, unseal(h.counter), h, p)\n\t\tif d != Accepted {\n\t\t\treturn d\n\t\t}\n", ""))
	add("missed-by-follower-alone", "a master gives way to none who had followed another and does not hear it",
		replace(movesFile, "if said.Missing && e.state == Master {", "if said.Missing && said.Follows == e.cfg.NodeID && e.state == Master {"))
	add("unheard-for-anybody", "a master that is not heard lets go for another than who does not hear it",
		replace(movesFile, "e.plan.heir = said.Node\n\t\te.advertise(now)", "e.advertise(now)"))
	add("bow-out-for-all", "a backup takes the role that was let go for another which it may not hear",
		replace(movesFile, "e.plan.passed = now\n\t\t}", "}"))
	add("window-rewritten", "a known counter is accepted with another weight",
		replace(windowFile, "case s != nil && !leaves && (s.continues(counter, t)", "case !same:\n\tcase s != nil && !leaves && (s.continues(counter, t)"))
	add("window-refuses-bsd", "a BSD that counts through known numbers is refused for as long as it does",
		replace(windowFile, "counter-l.counter-1 < windowStride {\n\t\t\treturn true", "counter-l.counter-1 < windowStride {\n\t\t\treturn false"))
	add("window-for-ever", "a recording of a BSD may be played without end",
		replace(windowFile, "if *e>>16&7 == windowAgain {", "if *e>>16&7 > windowAgain {"))
	add("members-all-at-once", "all members of one weight take the role of a silent master at one instant",
		replace(engine, "if turn := e.rank(now); turn > 0 &&", "if turn := e.rank(now); turn < 0 &&"))
}
