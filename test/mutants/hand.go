package main

// handMutants are faults that somebody could make.
func handMutants() []mutant {
	var all []mutant
	add := func(name, what string, edits ...edit) {
		all = append(all, mutant{name: name, what: what, edits: edits})
	}
	electionMutants(add)
	roleMutants(add)
	packetMutants(add)
	sealMutants(add)
	permitMutants(add)
	replicatorMutants(add)
	shipMutants(add)
	runtimeMutants(add)
	installMutants(add)
	moduleMutants(add)
	replicationMutants(add)
	daemonMutants(add)
	pathMutants(add)
	mysqlMutants(add)
	deviceMutants(add)
	vrrpElectionMutants(add)
	vrrpRoleMutants(add)
	vrrpPeerMutants(add)
	vrrpPacketMutants(add)
	aroundVRRPMutants(add)
	guardianMutants(add)
	fenceMutants(add)
	conflictMutants(add)
	resourceMutants(add)
	healthMutants(add)
	proxyMutants(add)
	kindMutants(add)
	return all
}

type adder func(name, what string, edits ...edit)

const (
	election = "carp/election.go"
	rules    = "carp/rules.go"
	engine   = "carp/engine.go"
	reconfig = "carp/reconfigure.go"
	receive  = "carp/receive.go"
	farewell = "carp/farewell.go"
	send     = "carp/send.go"
	speaker  = "carp/speaker.go"
	loop     = "carp/loop.go"
	instance = "cmd/daemon/instance.go"
)

// electionMutants decide wrongly between two nodes.
func electionMutants(add adder) {
	add("yield-on-worse", "a master yields to a worse one, not to a better one",
		replace(rules, "case order < 0:\n\t\treturn yield", "case order > 0:\n\t\treturn yield"))
	add("tie-won-by-both", "of two equal masters both stay",
		replace(receive, "if wins, ok := e.winsTie(h, p); ok && wins {", "if _, ok := e.winsTie(h, p); ok {"))
	add("tie-lost-by-both", "of two equal masters both yield, and wait equally long",
		replace(receive, "\tif wins, ok := e.winsTie(h, p); ok && wins {\n\t\te.keep(now, h, p)\n\t\treturn\n\t}\n\te.lose(now, h, p, ReasonTieLost)",
			"\te.lose(now, h, p, ReasonBetterMaster)"))
	add("skew-below-zero", "an effective advskew below 0 is not raised to 0",
		replace(election, "min(max(int(advskew)+demotion, 0), MaxDemotedSkew)", "min(int(advskew)+demotion, MaxDemotedSkew)"))
	add("skew-above-240", "an effective advskew above 240 is not lowered",
		replace(election, "min(max(int(advskew)+demotion, 0), MaxDemotedSkew)", "max(int(advskew)+demotion, 0)"))
	add("demoted-master-down", "a demoted backup waits longer for its master",
		replace(rules, "return masterDown(e.cfg.timing(), heard.timing)", "return masterDown(e.timing(), heard.timing)"))
	add("last-packet-counts", "a backup judges the last packet, not the best master that lives",
		replace(rules, "heard = e.followed(now)", "_ = e.followed(now)"))
	add("one-family-clock", "an advert over IPv6 does not restart the shared master-down time",
		replace(receive, "e.arm(down, now.Add(e.masterDown(h.bid)))",
			"if FamilyOf(p.Src) == IPv4 || e.cfg.Protocol.VRRP() {\n\t\te.arm(down, now.Add(e.masterDown(h.bid)))\n\t}"))
}

// roleMutants go wrong on the way into a role or out of it.
func roleMutants(add adder) {
	add("stall-unnoticed", "a master that stood still goes on when it wakes",
		replace(engine, "e.state == Releasing) && now.Sub(e.lastSent) > e.patience()", "e.state == Releasing) && now.Sub(e.lastSent) > 1<<20*e.patience()"))
	add("farewell-after-stall", "a master that stood still says farewell, and deposes its successor",
		replace(engine, "e.farewell = e.cfg.Compat != CompatBSD && why != ReasonStalled", "e.farewell = e.cfg.Compat != CompatBSD"))
	add("bow-out-when-yielding", "a master that yields bows out instead of saying farewell",
		replace(farewell, "e.emit(now, e.held)\n\te.reminder", "e.emit(now, leave)\n\te.reminder"))
	add("no-farewell", "a master that yields says nothing",
		replace(engine, "e.sayFarewell(now)", "_ = now"))
	add("bow-out-before-release", "a leaving master bows out before its addresses are gone",
		replace(engine, "e.move(now, Releasing, why, netip.Addr{})", "e.move(now, Releasing, why, netip.Addr{})\n\te.emit(now, leave)"))
	add("bow-out-after-failure", "a leaving master bows out though its addresses could not be let go",
		replace(engine, "e.bow(now, err == nil)", "e.bow(now, true)"))
	add("silent-release", "a leaving master sends no adverts while it lets go",
		replace(engine, "e.arm(timerRelease, now.Add(e.cfg.releaseBudget()))", "e.arm(timerRelease, now.Add(e.cfg.releaseBudget()))\n\te.disarm(timerAdvert)"))
	add("demoted-while-releasing", "a leaving master advertises its demotion, and calls a backup in early",
		replace(send, "\t\treturn e.held\n", "\t\treturn e.bid()\n"))
	add("bow-out-of-anybody", "a backup obeys the bow-out of a master that it does not follow",
		replace(receive, "if leaving == nil || !e.fresh(now, leaving) {", "if leaving == nil && !e.cfg.Protocol.VRRP() {\n\t\tleaving = &sighting{}\n\t} else if leaving == nil || !e.fresh(now, leaving) {"))
	add("bow-out-at-once", "all backups take an offered role at once",
		replace(receive, "e.arm(timerBowOut, now.Add(e.afterBowOut(gone)))", "e.arm(timerBowOut, now.Add(0*e.afterBowOut(gone)))"))
	add("no-grace", "a preempting node takes the addresses before the old master let go",
		replace(send, "case e.state == Master && e.timers[timerGrace] == 0 && !e.asking && e.spoken:", "case e.state == Master && !e.asking && e.spoken:"))
	add("guard-unasked", "permits are given before the guard has answered",
		replace(send, "case e.state == Master && e.timers[timerGrace] == 0 && !e.asking && e.spoken:", "case e.state == Master && e.timers[timerGrace] == 0 && e.spoken:"))
	add("permit-unspoken", "permits are given before the first advert has gone out",
		replace(send, "case e.state == Master && e.timers[timerGrace] == 0 && !e.asking && e.spoken:", "case e.state == Master && e.timers[timerGrace] == 0 && !e.asking:"))
	add("no-contest", "a master that another challenges says nothing",
		replace(receive, "case stay:\n\t\tif !bsd {", "case stay:\n\t\tif bsd && !bsd {"))
	add("demotion-unsaid", "a demoted master advertises its configured advskew or priority",
		replace(send, "\treturn e.bid()\n", "\treturn bid{e.cfg.timing(), e.cfg.Priority, e.cfg.Interval}\n"))
	add("send-errors-never-heal", "a node that could not send stays demoted after it lost the role",
		replace(send, "e.arm(timerHeal, now.Add(sendErrorHeal))", ""))
	add("no-hold-back", "a node whose takeover failed tries again without a pause",
		replace(engine, "e.arm(timerHold, now.Add(hold))", "_ = hold"))
	add("hold-back-forgotten", "a node whose takeover failed takes over all the same",
		replace(engine, "if e.timers[timerHold] == 0 {\n\t\te.becomeMaster(now, why, p)", "if e.timers[timerHold] >= 0 {\n\t\te.becomeMaster(now, why, p)"))
	add("stop-taken-back", "a node that stops comes back with its link",
		replace(engine, "case e.state != Init || !e.up || e.stopped || !e.ready:", "case e.state != Init || !e.up || !e.ready:"))
}

// packetMutants take or make wrong packets.
func packetMutants(add adder) {
	add("own-packets", "own packets that come back are taken for another master's",
		replace(send, "if c == counter {\n\t\t\treturn true", "if c == counter {\n\t\t\treturn false"))
	add("hash-unchecked", "an advert with a wrong HMAC is taken",
		replace(receive, "case !e.authentic(&a):\n\t\treturn e.foreignProtocol(DropHash, p)\n", ""))
	add("ttl-unchecked", "an advert from behind a router is taken",
		replace(receive, "if len(peers) == 0 && p.TTL != 255 {", "if len(peers) == 0 && p.TTL == 0 {"))
	add("rolling-refused", "adverts under the earlier passphrase are refused while it rolls",
		replace(receive, "if e.rolling[i].verify(a) {\n\t\t\treturn true", "if e.rolling[i].verify(a) {\n\t\t\treturn false"))
	add("rolling-unsent", "a master does not send under the earlier passphrase while it rolls",
		replace(send, "for i := range e.rolling {\n\t\te.emitUnder(&e.rolling[i], b.timing, counter)\n\t}\n", ""))
	add("counter-constant", "every advert has the same clock in its counter",
		replace(send, "e.clock = min(max(e.guard.clock.at(now), e.clock+1), maxClock)", "e.clock = 1"))
	add("addresses-unsorted", "the HMAC covers the addresses in the order of the configuration",
		replace("carp/auth.go", "slices.SortFunc(sorted, netip.Addr.Compare)", ""))
	add("epoch-kept", "a new mastership has the epoch of the one before",
		replace(engine, "func (e *Engine) becomeMaster(now Instant, why Reason, p *Packet) {\n\te.newEpoch(now)", "func (e *Engine) becomeMaster(now Instant, why Reason, p *Packet) {\n\te.epoch = max(e.epoch, 1)"))
}

// permitMutants act longer or earlier than the permit allows.
func permitMutants(add adder) {
	add("permit-too-long", "a permit lasts as long as the own master-down time",
		replace(rules, "return PermitTime(e.fastestDown())", "return e.masterDown(e.bid())"))
	add("permit-without-end", "a permit lives for ever",
		replace("carp/effects.go", "return p.Epoch != 0 && now < p.Until", "return p.Epoch != 0"))
	add("permit-from-report", "a permit counts from the report of the send, not from before the send",
		replace(speaker, "e = s.engine.Sent(before)", "e = s.engine.Sent(max(before, s.link.Now()))"))
	add("permit-not-withdrawn", "a node that leaves the role keeps its permit",
		replace(speaker, "\t\ts.holder.Permit(Permit{})\n", ""))
	add("timers-before-packets", "a late timer fires before the packets that came in time",
		replace(speaker, "turn(due bool) (more bool) {\n", "turn(due bool) (more bool) {\n\tif due {\n\t\ts.feed(s.engine.Tick)\n\t}\n"))
	add("socket-not-looked-into", "a master is dead though its advert waits in the socket",
		replace("carp/speaker_links.go", "left = p.Poll() || left", "_ = p"))
	add("deaf-while-called", "packets are not read while calls come without end",
		replace(loop, "\t\tl.read()\n", ""))
	add("unheard-deadline", "a packet that was read inline does not move the deadline that the loop knows",
		replace("carp/inline.go", "\tl.schedule(s, s.deadline)\n", ""))
	add("filter-forgets-new-port", "the kernel's filter is not told of a new virtual router",
		replace("carp/link/interface.go", "good = i.listen(s) && good", "good = (i.wire.filter != nil || i.listen(s)) && good"))
	add("stranger-drowns-master", "a full inbox drops the oldest packet, whoever floods it",
		replace("carp/link/inbox.go", "return a.packets - b.packets })", "return b.oldest - a.oldest })"))
	add("filter-wrong-bit", "the kernel's filter looks at the wrong ids",
		replace("carp/link/filter.go", "bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 31}", "bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 15}"))
	add("sleeper-takes-over", "a backup that was suspended takes its master for dead when it wakes",
		replace("carp/slept.go", "return late > down }", "return false }"))
	add("timers-behind-all-packets", "many speakers' packets come before a timer that is due",
		replace(loop, "\t\tl.fire()\n\t\tl.turn(s, false)\n", "\t\tl.turn(s, false)\n"))
	add("turn-without-bound", "a speaker that is flooded lets no other have its turn",
		replace("carp/speaker_links.go", "for range maxTurn {", "for {"))
	add("rest-of-inbox-forgotten", "what is left in an inbox after a turn waits for the next packet",
		replace(loop, "\tif more {\n\t\tl.wake(s)\n\t}\n", "\t_ = more\n"))
	add("observer-holds-all-up", "an observer that hangs stops the adverts",
		replace(speaker, "s.told = s.herald.tell(s.Observe, t)", "s.Observe(t)"))
	add("worker-ignores-permit", "a worker adds and renews without a permit",
		replace("vip/lease.go", "\tif !p.Live(now) {\n\t\treturn false\n\t}\n\treturn !l.Promised || now.Add(l.Valid+l.Late) <= p.Until", "\treturn true"))
	add("worker-forgets-lease", "a worker renews as long as the permit lives, though the lease outlives it",
		replace("vip/lease.go", "return !l.Promised || now.Add(l.Valid+l.Late) <= p.Until", "return true"))
	add("lease-too-long", "a lease is promised without counting how late the kernel is",
		replace("vip/lease.go", "gone := interval - renew + valid + kernelLate", "gone := interval - renew + valid"))
	add("lease-without-margin", "a lease is promised that the permit leaves no room to renew",
		replace("vip/lease.go", "gone <= carp.PermitTime(masterDown)", "gone < masterDown"))
	add("lapse-unnoticed", "a worker leaves the addresses on when the permit ends",
		replace("vip/worker.go", "if !st.permit.Live(now) {\n\t\treturn taskLapse, 0\n\t}\n", ""))
	add("restored-for-ever", "lost addresses are put back without a limit",
		replace("vip/worker.go", "st.tokens = st.tokens.spend(now)\n", ""))
	add("removal-unchecked", "addresses that are still there after their removal count as gone",
		replace("vip/clear.go", "if listed == nil && len(changes) == 0 {", "if listed == nil {"))
	add("sessions-after-addresses", "sockets are destroyed when their address is gone already: nobody is told",
		replace("vip/clear.go", "more := s.sever(on.Index, placed, severBudget(why))", "more := false"))
	add("sessions-of-the-node", "sockets of addresses that another interface has are destroyed too",
		replace("vip/diag_linux.go", "ok && o != nil && on != o.index", "ok && o != nil && on == -1"))
}

// daemonMutants move role, addresses and hooks in the wrong order.
func daemonMutants(add adder) {
	add("gate-skipped", "the before-up hooks do not run",
		replace(instance, "if !i.passed { //", "if false { //"))
	add("gate-ignored", "a before-up hook that fails does not stop the addresses",
		replace(instance, "if err := i.run(ctx, hooks.BeforeUp, t); err != nil {\n\t\t\treturn i.undo(ctx, t, err)\n\t\t}", "_ = i.run(ctx, hooks.BeforeUp, t)"))
	add("hook-of-the-wrong-role", "the after-up hooks run when the node has left the role",
		replace(instance, "err := i.run(ctx, hooks.AfterDown, t)", "err := i.run(ctx, hooks.AfterUp, t)"))
	add("released-before-down", "the bow-out and the farewell come before the addresses are off",
		replace(instance, "\ti.resources.until.Store(0)\n\tif i.holding {", "\ti.resources.until.Store(0)\n\ti.speaker.Released(t, nil)\n\tif i.holding {"))
	add("addresses-stay-after-failure", "a node that cannot serve keeps its addresses on",
		replace(instance, "\ti.set.Permit(carp.Permit{})\n\tdownErr := i.set.Down(ctx)", "\tvar downErr error"))
	add("permits-not-handed-on", "the worker never hears of a permit",
		replace(instance, "\t\ti.resources.until.Store(int64(p.Until))\n\t\ti.set.Permit(p)\n", "\t\ti.resources.until.Store(int64(p.Until))\n"))
}
