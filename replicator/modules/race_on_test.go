//go:build race

package modules_test

// raceDetector says that these tests are built with it.
const raceDetector = true
