package safety

import (
	"slices"
	"time"
)

// sample is one question by ARP for one address, and who answered it.
type sample struct {
	at int64 // when it was asked, nanoseconds
	by uint8 // bit n: node n answered
}

// held is what samples say about a span of time.
type held struct {
	two, none         time.Duration // with two holders or more; with none
	stillTwo, stillNo bool          // it was so at the end
	gap               time.Duration // the longest time between two questions
}

// hold adds up samples, which are in the order of time, from one instant to another.
// A sample stands for the time until the next one or the end; the time before the
// first one says nothing, and is a gap.
func hold(samples []sample, from, to int64) (h held) {
	last := from
	for i, s := range samples {
		end := to
		if i+1 < len(samples) {
			end = min(samples[i+1].at, to)
		}
		begin := max(s.at, from)
		if begin >= end {
			continue
		}
		h.gap = max(h.gap, time.Duration(end-begin), time.Duration(begin-last))
		last = end
		h.stillTwo, h.stillNo = holders(s.by) > 1, s.by == 0
		switch {
		case h.stillTwo:
			h.two += time.Duration(end - begin)
		case h.stillNo:
			h.none += time.Duration(end - begin)
		}
	}
	h.gap = max(h.gap, time.Duration(to-last))
	return h
}

// holders counts who answered.
func holders(by uint8) (n int) {
	for ; by != 0; by &= by - 1 {
		n++
	}
	return n
}

// worst takes the worst of what is said of several addresses: each figure of the
// address for which it is greatest.
func worst(all []held) (w held) {
	for _, h := range all {
		w.two, w.none, w.gap = max(w.two, h.two), max(w.none, h.none), max(w.gap, h.gap)
		w.stillTwo, w.stillNo = w.stillTwo || h.stillTwo, w.stillNo || h.stillNo
	}
	return w
}

// outage returns the longest time without an answer between two instants, both of
// which end it as an answer does, and whether it went on to the end.
func outage(answers []int64, from, to int64) (longest time.Duration, open bool) {
	last := from
	for _, at := range answers {
		if at <= from || at > to {
			continue
		}
		longest, last = max(longest, time.Duration(at-last)), at
	}
	final := time.Duration(to - last)
	return max(longest, final), final >= longest && final > openOutage
}

// openOutage is from which length on an outage at the end is one, and not the time
// to the next answer.
const openOutage = 200 * time.Millisecond

// advert is one that a node sent, as the observer heard it.
type advert struct {
	at   int64
	node int
	last bool // it says that the sender leaves
}

// harm is a span of time in which something was done to a node: what it does then,
// and until it has had time to learn what others did, is not its fault.
type harm struct {
	node     int
	from, to int64 // 0: it was never mended
}

// takeover is a node that began to advertise.
type takeover struct {
	at    int64
	node  int
	wrong bool // there was a better master to which nothing had been done
}

// takeovers reads from adverts, which are in the order of time, who began to advertise
// and when: after it had not for longer than quiet, or had said that it leaves. A node
// is master until it says that it leaves or a better one advertises that it can hear.
// Silence does not take the role from it when others are judged: a backup that takes
// over from a master that was silenced but not harmed is wrong.
func takeovers(adverts []advert, harms []harm, quiet time.Duration) (all []takeover) {
	var spoke, master [nodes]int64 // stamps of last adverts: of all, and as master; 0 is none
	for _, a := range adverts {
		if a.last {
			spoke[a.node], master[a.node] = 0, 0
			continue
		}
		if spoke[a.node] == 0 || a.at-spoke[a.node] > int64(quiet) {
			all = append(all, takeover{a.at, a.node, deposed(master, harms, a, quiet)})
		}
		spoke[a.node], master[a.node] = a.at, a.at
		for worse := a.node + 1; worse < nodes; worse++ {
			if !harmed(harms, a.node, a.at, a.at, quiet) && !harmed(harms, worse, a.at, a.at, quiet) {
				master[worse] = 0
			}
		}
	}
	return all
}

// deposed reports whether a better node than that of an advert is master, and nothing
// happened to either since the better one was last heard.
func deposed(master [nodes]int64, harms []harm, a advert, quiet time.Duration) bool {
	for better, last := range master[:a.node] {
		if last != 0 && !harmed(harms, better, last, a.at, quiet) && !harmed(harms, a.node, last, a.at, quiet) {
			return true
		}
	}
	return false
}

// harmed reports whether something was done to a node between two instants, or so
// shortly before that it may not have recovered.
func harmed(harms []harm, node int, from, to int64, quiet time.Duration) bool {
	return slices.ContainsFunc(harms, func(h harm) bool {
		return h.node == node && h.from <= to && (h.to == 0 || h.to+int64(quiet) >= from)
	})
}
