package main

// explained lists the mutants that no test notices, each with the reason why that
// is right: it changes nothing that can be seen, or nothing that is promised. One
// that is noticed after all, or that there is no more, makes the run fail.
var explained = map[string]string{

	// What is written is there already, or is never looked at.
	"auth.go saved: `panic(\"carp: save SHA-1 state: \" + err.Error())` is dropped":                "crypto/sha1 always saves its state",
	"auth.go restore: `panic(\"carp: restore SHA-1 state: \" + err.Error())` is dropped":           "crypto/sha1 always restores what it saved",
	"engine.go finish: `at < e.out.Deadline` becomes `at <= e.out.Deadline`":                       "the same deadline once more",
	"election.go masterDown: `heard.units() > own.units()` becomes `heard.units() >= own.units()`": "the same interval once more",
	"send.go Sent: `e.failures > 0` becomes `e.failures >= 0`":                                     "sets 0 to 0",

	// One nanosecond or millisecond, of which nothing is promised.
	"send.go Stale: `now.Sub(decided) > e.patience()` becomes `now.Sub(decided) >= e.patience()`": "the very nanosecond at which patience ends",
}
