package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/carpd/carpd/test/lab"
)

// stepsScript is a resource of three steps, of which the second has no return: from then
// on a node is a primary. It says so when another one is, too. A step waits while there is
// a file hold-ACTION-STEP-NODE.
const stepsScript = `#!/bin/sh
cd "$(dirname "$0")" || exit 1
action=$1 node=$2
note() { flock lock sh -c 'echo "$1" >>diary' sh "$node $*"; }
level() { cat level-$1 2>/dev/null || echo 0; }
reach() { echo $1 >new-$node && mv new-$node level-$node; }
hold() { note $action $1; while [ -e hold-$action-$1-$node ]; do sleep 0.02; done; }
case $action in
promote)
	i=$(level $node)
	while [ $i -lt 3 ]; do
		hold $i
		i=$((i + 1))
		reach $i
		[ $i -ne 2 ] || for other in a b c; do
			[ $other = $node ] || [ $(level $other) -lt 2 ] || note TWO PRIMARIES $other
		done
	done
	note promoted ;;
demote)
	i=$(level $node)
	while [ $i -gt 0 ]; do
		i=$((i - 1))
		hold $i
		reach $i
	done
	note demoted ;;
monitor)
	case $(level $node) in
	0) exit 7 ;;
	3) exit 8 ;;
	esac
	exit 1 ;;
esac
`

// stepped is commons with the other script.
type stepped struct{ *commons }

func (s stepped) entry(node string) []string {
	lines := s.commons.entry(node)
	if err := os.WriteFile(filepath.Join(s.dir, "script"), []byte(stepsScript), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return lines
}

func (s stepped) level(node string) int {
	text, err := os.ReadFile(filepath.Join(s.dir, "level-"+node))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// Whoever is killed or frozen within whichever step: another node takes over, it ends with
// one primary, who is the master, and there were two at a time only if the other one was a
// primary just then, whom nothing but itself or the kind can demote.
func TestOnePrimaryIsLeftWhereverANodeIsKilledOrFrozen(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"promote", "demote"} {
		for step := range 3 {
			for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
				for _, count := range []int{2, 3} {
					if count == 3 && step != 1 {
						continue
					}
					t.Run(fmt.Sprintf("%s %d, %v, %d nodes", action, step, signal, count), func(t *testing.T) {
						t.Parallel()
						withinAStep(t, action, step, signal, count)
					})
				}
			}
		}
	}
}

func withinAStep(t *testing.T, action string, step int, signal syscall.Signal, count int) {
	s := stepped{newCommons(t)}
	names := []string{"a", "b", "c"}[:count]
	var nodes []*node
	again := func(n *node) { n.startWith(n.command("run", "--config", n.config())) }
	if count == 2 {
		p := newPair(t)
		p.elect(settings{more: s.entry("a")}, settings{advskew: 100, more: s.entry("b")})
		nodes = []*node{p.a, p.b}
	} else {
		g := newSealedGroup(t, member{more: s.entry("a")}, member{advskew: 50, more: s.entry("b")}, member{advskew: 100, more: s.entry("c")})
		g.start(0)
		g.nodes[0].promote()
		g.start(1)
		g.start(2)
		nodes = g.nodes
	}
	s.awaitDiary("a promoted")
	for _, n := range nodes[1:] {
		n.await("BACKUP")
	}
	lab.Eventually(t, takeover, "a to have its address", func() bool { return nodes[0].HasAddr(shared4) })

	for _, name := range names {
		s.set(fmt.Sprintf("hold-%s-%d-%s", action, step, name), "")
	}
	go nodes[0].try("POST", "/v1/handover", map[string]string{}, nil)
	var victim int
	lab.Eventually(t, 2*takeover, "a node to be within the step", func() bool {
		d := s.diary()
		name, rest, _ := strings.Cut(d[len(d)-1], " ")
		victim = slices.Index(names, name)
		return rest == fmt.Sprintf("%s %d", action, step)
	})
	hurt, at := nodes[victim], len(s.diary())
	level := s.level(names[victim])
	if signal == syscall.SIGKILL {
		hurt.crash()
	} else {
		hurt.proc.Signal(signal)
	}
	for i, name := range names {
		if i != victim {
			s.remove(fmt.Sprintf("hold-%s-%d-%s", action, step, name))
		}
	}
	lab.Eventually(t, 4*takeover, "another node to promote", func() bool {
		return slices.ContainsFunc(s.diary()[at:], func(line string) bool { return strings.HasSuffix(line, " promoted") })
	})
	if signal == syscall.SIGKILL {
		again(hurt)
	} else {
		hurt.proc.Signal(syscall.SIGCONT)
	}
	s.remove(fmt.Sprintf("hold-%s-%d-%s", action, step, names[victim]))
	lab.Eventually(t, 4*takeover, "one node to be the primary and master, and the others neither", func() bool {
		primaries := 0
		for i, n := range nodes {
			st := n.instance().State
			switch level := s.level(names[i]); {
			case level == 3 && st == "MASTER" && n.HasAddr(shared4):
				primaries++
			case level != 0 || st != "BACKUP":
				return false
			}
		}
		return primaries == 1
	})
	diary := strings.Join(s.diary(), "\n")
	if two := strings.Contains(diary, "TWO PRIMARIES"); two != (level >= 2) {
		t.Errorf("two primaries: %v, and the one that was hurt had %d of 3 steps in effect:\n%s", two, level, diary)
	}
}
