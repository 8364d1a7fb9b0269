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
//   - On failure, the output of every process and, with CARPD_PCAP=DIR, every
//     capture is kept.
//
// Where no namespace can be made, New skips the test and says why; with
// CARPD_LAB=required it fails instead.
//
// Methods of LAN, Host, Proc, Capture and Prober are safe for concurrent use.
// Those without an error result end the test by t.Fatal, and so belong on the
// test's goroutine.
package lab
