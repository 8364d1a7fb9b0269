// Package lab is the real kernel for tests: hosts in network namespaces on one
// switch, made by the test and gone with it. It needs root, or a system that
// lets users make user namespaces; no network, no container runtime, no tools.
//
//	func TestMain(m *testing.M) { lab.Main(m) }
//
//	func TestLabAnswersPing(t *testing.T) {
//		lan := lab.New(t)
//		a := lan.Host("a", "192.0.2.1/24")
//		lan.Host("b", "192.0.2.2/24")
//		a.Do(func() { ... sockets opened here are a's ... })
//	}
//
// # Bad networks
//
// With Switched(seed) the switch is a thread of this process that carries real
// frames and harms them, one way of one pair of hosts at a time:
//
//	lan := lab.New(t, lab.Switched(seed))
//	lan.Link(a, b).Delay(5*time.Millisecond, time.Millisecond).Loss(0.1)
//	lan.Link(b, a).Cut()
//	...
//	lan.Heal()
//
// Link has latency, jitter, loss, corruption, duplication, reordering, echo, cuts
// and clogs; LAN has Partition and Split; Host has Unplug and Plug for flaps.
// Everything may be changed while frames flow.
//
// What is dropped, corrupted, duplicated, delayed and reordered is deterministic:
// it depends for the nth frame of a link on the seed, the link and n only. When
// frames are sent is up to the kernel and those who send: a test that is to repeat
// itself lets chance count only the frames that it means (Link.Only).
//
// # Without go test
//
// Nothing here needs package testing. Run is a test for a program, TB what a test
// is, and Enter what Main does:
//
//	err := lab.Run("failover", func(line string) { log.Print(line) }, func(t lab.TB) {
//		lan := lab.New(t, lab.Switched(1))
//		...
//	})
//
// # What is promised
//
//   - Nothing has a name outside: namespaces are anonymous, so any number of
//     tests run at once, and a test that is killed with SIGKILL leaves nothing
//     but what a process of a host had forked: that must end by itself then. In
//     all other cases every process in a host's namespace is killed.
//   - A host has one interface, eth0, and lo. Addresses are usable when Host
//     returns: no duplicate detection, TX checksums computed in software (veth
//     leaves them out otherwise).
//   - The switch forwards multicast everywhere, and at once when a port appears.
//     A Switched one learns addresses per port, so that each side of a partition
//     follows what it hears; its queues are bounded (Link.Limit) and count what
//     they drop (Link.Stats, LAN.Overruns).
//   - On failure, the output of every process and, with CARPD_PCAP=DIR, every
//     capture is kept, with what the switch dropped.
//
// Where no namespace can be made, New skips the test and says why; with
// CARPD_LAB=required it fails instead.
//
// Methods of LAN, Link, Host, Proc, Capture and Prober are safe for concurrent use.
// Those without an error result end the test by t.Fatal, and so belong on the
// test's goroutine.
package lab
