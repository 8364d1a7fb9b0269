package lab

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

// On a busy machine the reader may run for the first time when the time that is
// given to it is over. Many times, since what is kept too late may be kept just in
// time.
func TestWhatWasWrittenInTimeIsKeptHoweverLateItsReaderIs(t *testing.T) {
	for range 300 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close() // a grandchild that lives on
		if _, err := w.WriteString("the last line\n"); err != nil {
			t.Fatal(err)
		}
		if err := r.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		p := &Proc{}
		caught := make(chan struct{})
		go p.drain(r, caught)
		<-caught
		if out := p.Output(); out != "the last line\n" {
			t.Fatalf("kept %q", out)
		}
		// What the grandchild says is kept as well.
		if _, err := w.WriteString("more\n"); err != nil {
			t.Fatal(err)
		}
		Eventually(t, 5*time.Second, "what is written later", func() bool { return p.Output() == "the last line\nmore\n" })
	}
}

func TestGrandchildThatHoldsTheOutputDelaysNoEnd(t *testing.T) {
	h := New(t).Host("a")
	began := time.Now()
	p := h.Start(exec.Command("/bin/sh", "-c", "echo said; sleep 60 & exit 3"))
	err := p.Wait(5 * time.Second)
	if exitCode(err) != 3 || p.Output() != "said\n" {
		t.Errorf("after %v: %v %q", time.Since(began), err, p.Output())
	}
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return 0
}
