package sim

import "time"

// task is one thing that will happen: a closure, or one of the few that happen
// so often that a closure would cost too much.
type task struct {
	at   time.Duration
	seq  uint64 // breaks ties: what was planned first happens first
	what taskKind
	life uint32 // of the daemon that planned it; 0: not a daemon's business
	host *Host
	pkt  *packet
	fn   func()
}

type taskKind uint8

const (
	taskCall    taskKind = iota
	taskDeliver          // pkt reaches host
	taskTick             // the loop's timer
	taskSet              // the worker that keeps the addresses
	taskExpire           // the kernel looks for addresses whose lifetime is over
)

// queue is a binary heap of tasks by time, then by the order of planning.
type queue struct {
	heap []task
	seq  uint64
}

func (q *queue) push(t task) {
	q.seq++
	t.seq = q.seq
	q.heap = append(q.heap, t)
	i := len(q.heap) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !q.heap[i].before(&q.heap[up]) {
			break
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
}

// next returns the time of the first task; ok is false if there is none.
func (q *queue) next() (at time.Duration, ok bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].at, true
}

func (q *queue) pop() task {
	first, last := q.heap[0], len(q.heap)-1
	q.heap[0] = q.heap[last]
	q.heap[last] = task{}
	q.heap = q.heap[:last]
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < last; c++ {
			if q.heap[c].before(&q.heap[least]) {
				least = c
			}
		}
		if least == i {
			return first
		}
		q.heap[i], q.heap[least] = q.heap[least], q.heap[i]
		i = least
	}
}

func (t *task) before(u *task) bool { return t.at < u.at || t.at == u.at && t.seq < u.seq }
