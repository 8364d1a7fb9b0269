package script

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// leaseLate is how much later than its lifetime a kernel may remove an address.
const leaseLate = 1100 * time.Millisecond

// slack is by how much an event's time may differ on the kernel.
func (p *player) slack(e Event) time.Duration {
	if strings.HasPrefix(e.Text, "address off (") {
		return p.f.Tolerance + leaseLate
	}
	return p.f.Tolerance
}

// judge compares what came out on the kernel with what is written: answers block
// by block, events node by node over the whole scenario, since an event near the
// end of a run may come after it.
func (p *player) judge(outputs [][]string) []Fault {
	var faults []Fault
	for i, b := range p.f.Blocks {
		want, got := p.f.answersOf(b.Want), p.f.answersOf(outputs[i])
		if !slices.EqualFunc(want, got, p.sameAnswer) {
			faults = append(faults, Fault{Line: b.Line, Want: want, Got: got})
		}
	}
	if p.f.Loose {
		return faults
	}
	for _, n := range p.f.Nodes {
		for _, addresses := range []bool{false, true} {
			if fault, bad := p.judgeNode(n.Name, addresses); bad {
				faults = append(faults, fault)
			}
		}
	}
	return faults
}

// judgeNode compares the transitions of one node, or its addresses: these two
// come from different clocks, and their order among each other is not certain.
func (p *player) judgeNode(node string, addresses bool) (Fault, bool) {
	var want, got []told
	for i, b := range p.f.Blocks {
		for _, line := range b.Want {
			if e, ok := p.f.parseLine(line); ok && e.Node == node && isAddress(e) == addresses {
				want = append(want, told{e, i})
			}
		}
	}
	for _, t := range p.told {
		if t.Node == node && isAddress(t.Event) == addresses {
			got = append(got, t)
		}
	}
	line := func(all []told) (lines []string) {
		for _, t := range all {
			lines = append(lines, p.f.line(t.Event))
		}
		return lines
	}
	for i := range max(len(want), len(got)) {
		fault := Fault{Want: line(want), Got: line(got)}
		if i < len(want) {
			fault.Line = p.f.Blocks[want[i].block].Line
		} else {
			fault.Line = p.f.Blocks[got[i].block].Line
		}
		switch {
		case i >= len(want):
			fault.Why = fmt.Sprintf("%s: nothing more is written of %s", p.f.line(got[i].Event), node)
		case i >= len(got):
			fault.Why = fmt.Sprintf("%s never came", strings.TrimSpace(p.f.line(want[i].Event)))
		case plain(want[i].Text) != plain(got[i].Text):
			fault.Why = fmt.Sprintf("of %s, number %d is another one", node, i+1)
		case (want[i].At - got[i].At).Abs() > p.slack(want[i].Event):
			fault.Why = fmt.Sprintf("of %s, number %d is %v off; %v is tolerated", node, i+1, got[i].At-want[i].At, p.slack(want[i].Event))
		default:
			continue
		}
		return fault, true
	}
	return Fault{}, false
}

func isAddress(e Event) bool { return strings.HasPrefix(e.Text, "address o") }

// plain takes off why an address went: the kernel does not say it.
func plain(text string) string {
	if strings.HasPrefix(text, "address o") {
		text, _, _ = strings.Cut(text, " (")
	}
	return text
}

func (f *File) answersOf(lines []string) []string {
	var all []string
	for _, line := range lines {
		if _, event := f.parseLine(line); !event {
			all = append(all, line)
		}
	}
	return all
}

// sameAnswer compares word by word, times with tolerance.
func (p *player) sameAnswer(want, got string) bool {
	return slices.EqualFunc(strings.Fields(want), strings.Fields(got), func(a, b string) bool {
		x, err1 := time.ParseDuration(a)
		y, err2 := time.ParseDuration(b)
		if err1 == nil && err2 == nil {
			return (x - y).Abs() <= p.f.Tolerance
		}
		return a == b
	})
}

// diff returns the lines of both, those of want alone with "-", those of got
// alone with "+".
func diff(want, got []string) []string {
	// common[i][j] is the length of the longest common part of want[i:] and got[j:].
	common := make([][]int, len(want)+1)
	for i := range common {
		common[i] = make([]int, len(got)+1)
	}
	for i := len(want) - 1; i >= 0; i-- {
		for j := len(got) - 1; j >= 0; j-- {
			if want[i] == got[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(want) || j < len(got) {
		switch {
		case i < len(want) && j < len(got) && want[i] == got[j]:
			out = append(out, " "+want[i])
			i, j = i+1, j+1
		case j == len(got) || i < len(want) && common[i+1][j] >= common[i][j+1]:
			out = append(out, "-"+want[i])
			i++
		default:
			out = append(out, "+"+got[j])
			j++
		}
	}
	return out
}
