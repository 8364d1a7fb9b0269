// Package rules is the architecture as tests: what may import what, where state
// may live, what must be documented. Its tests read the whole
// repository, and a rule that is broken says where, and why there is a rule.
//
// Each checker is a function from small inputs to a list of faults, and has a
// test of its own in which it must fail: a rule that cannot be broken protects
// nothing.
package rules
