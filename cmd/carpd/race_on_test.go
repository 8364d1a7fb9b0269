//go:build race

package main_test

// raceDetector says that the daemon is to be built as these tests are.
const raceDetector = true
