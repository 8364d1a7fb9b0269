// Package systemd is the hook kind "systemd": it starts, stops, restarts or reloads a unit
// and waits until that is done; as a resource, the unit runs where the role is.
//
//	kind: systemd
//	with: {unit: haproxy.service}
//
// # What it promises
//
// An action is over when systemd has ended its job, not when it was asked for, and then
// the unit is looked at: a job that is done does not say that the unit lives. A job that is
// waited for when the context ends is taken back, unless it stops the unit: letting go goes
// on. A unit that is missing or masked is a refusal; nothing of it runs, so it counts as
// stopped.
//
// Where the machine was not booted with systemd, the script of the service in /etc/init.d
// is used by service(8), or the programs that the configuration gives. Their exits are
// those of the Linux Standard Base; what they start stays.
//
// systemd itself does not run where these tests do: they use a message bus of their own
// with a stand-in on it, that has units and jobs.
package systemd
