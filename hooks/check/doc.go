// Package check holds the monitors that look at what is around a service: an interface,
// a route, a process, a file, a TCP port, a page of HTTP.
//
//	interface  it is up and has a carrier, and these addresses
//	route      the kernel would reach a destination, through this gateway or interface
//	process    a process runs, by pidfile, number, name or unit of systemd
//	file       a file exists, or not, is fresh, says how well the node is
//	tcp        a port or a unix socket takes a connection, and answers as expected
//	http       a page has the right status and text
//
// A check changes nothing and keeps nothing open between two looks. It says ok or unfit,
// and a file may say degraded; what follows from it, how often is looked and how many
// looks it takes is not its business but that of package hooks. interface, route and
// process also tell at once when something has happened (hooks.Waker).
//
// Nothing that a check sends, no header and no body that it was answered, is ever in a
// report: they may hold secrets.
//
// Limits: a look reads at most 64 KiB of a file or an answer, of the kernel 16 MiB of
// routes; and finds at most 64 processes, among at most 65,536.
package check

import (
	"errors"
	"fmt"
	"strings"

	"github.com/carpd/carpd/hooks"
)

// maxRead bounds what is read of a file or an answer.
const maxRead = 64 << 10

// The reports of a check.
func fine(format string, args ...any) (hooks.Report, error) {
	return hooks.Report{Health: hooks.Healthy, Text: fmt.Sprintf(format, args...)}, nil
}

func unfit(format string, args ...any) (hooks.Report, error) {
	return hooks.Report{Health: hooks.Unfit, Text: fmt.Sprintf(format, args...)}, nil
}

// faults collects what is wrong with a configuration.
type faults []error

func (f *faults) add(when bool, format string, args ...any) {
	if when {
		*f = append(*f, fmt.Errorf(format, args...))
	}
}

func (f faults) err() error { return errors.Join(f...) }

// given returns the names of those that are true.
func given(keys map[string]bool) []string {
	var names []string
	for name, is := range keys {
		if is {
			names = append(names, name)
		}
	}
	return names
}

// singleLine reports whether a text can be in a line of a report.
func singleLine(s string) bool { return !strings.ContainsAny(s, "\n\r\x00") }
