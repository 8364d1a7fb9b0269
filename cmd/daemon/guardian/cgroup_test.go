package guardian

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A daemon that was frozen goes on, and its next hooks live: what the guardian has ended are
// the processes that there were, children too, and not the cgroup.
func TestHooksThatStartAfterOthersWereEndedLive(t *testing.T) {
	hooks, err := MakeHooks()
	if err != nil {
		t.Skipf("no cgroup can be made here: %v", err)
	}
	t.Cleanup(func() { RemoveHooks(hooks) })
	c := openCgroup(hooks.Name())
	defer c.close()
	start := func(script string) (*exec.Cmd, *bufio.Reader) {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(hooks.Fd())}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd, bufio.NewReader(out)
	}
	for range 3 {
		cmd, out := start("(while :; do sleep 60; done) & echo begun; while :; do sleep 60; done")
		if line, err := out.ReadString('\n'); err != nil || line != "begun\n" {
			t.Fatalf("a hook that is started says %q, %v", line, err)
		}
		if !c.end() {
			t.Fatal("they could not be ended")
		}
		if err := cmd.Wait(); err == nil {
			t.Error("the hook has ended by itself")
		}
		late := time.Now().Add(10 * time.Second)
		for {
			left, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
			if err == nil && len(left) == 0 {
				break
			}
			if time.Now().After(late) {
				t.Fatalf("still there: %s, %v", left, err)
			}
		}
	}
}
