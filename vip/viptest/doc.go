// Package viptest holds what a test of addresses needs: FakeKernel, a kernel in
// memory whose clock is package time's (so that it works in testing/synctest
// bubbles), and Conformance, which says what every vip.Kernel promises.
package viptest
