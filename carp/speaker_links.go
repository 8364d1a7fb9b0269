package carp

import "errors"

// A speaker reads each of its links by itself, and not through one that joins them:
// a flood on one then pushes nothing of another out of an inbox, and no goroutine
// stands between a link and the loop.

func (s *Speaker) openLinks() {
	s.events = s.link.Events()
	for _, l := range s.Beside {
		s.aside = append(s.aside, l.Events())
		s.pollFrom(l)
	}
}

func (s *Speaker) pollFrom(l Link) {
	if p, ok := l.(Poller); ok {
		s.pollers = append(s.pollers, p)
	}
}

func (s *Speaker) links() []Link { return append([]Link{s.link}, s.Beside...) }

func (s *Speaker) notify(f func()) {
	for _, l := range s.links() {
		l.Notify(f)
	}
}

func (s *Speaker) closeLinks() (err error) {
	for _, l := range s.links() {
		err = errors.Join(err, l.Close())
	}
	return err
}

// poll takes what waits in the sockets, and reports whether events may be left.
func (s *Speaker) poll() (more bool) {
	for left, n := true, 0; left && n < maxPolls; n++ {
		left = false
		for _, p := range s.pollers {
			left = p.Poll() || left
		}
		more = s.drain()
	}
	return more
}

// drainLink gives the engine what waits in one link, but no more than a full inbox.
// It reports whether events may be left.
func (s *Speaker) drainLink(link uint8, events *<-chan LinkEvent) (more bool) {
	for range maxTurn {
		select {
		case ev, open := <-*events:
			if !open {
				*events = nil
				s.event(link, LinkEvent{Down: true})
				return false
			}
			s.event(link, ev)
		default:
			return false
		}
	}
	return true
}

func (s *Speaker) event(link uint8, ev LinkEvent) {
	now := s.link.Now()
	switch {
	case ev.Packet != nil:
		ev.Packet.Link = link
		s.apply(now, s.engine.Receive(now, *ev.Packet))
	case ev.Up != nil && link == 0:
		s.apply(now, s.engine.LinkUp(now, *ev.Up))
	case ev.Up != nil:
		s.apply(now, s.engine.PathUp(now, link, *ev.Up))
	case ev.Down && link == 0:
		s.apply(now, s.engine.LinkDown(now))
	case ev.Down:
		s.apply(now, s.engine.PathDown(now, link))
	case ev.Lost > 0:
		s.engine.Overflow(ev.Lost)
	}
}

// send sends a frame over the link of its path. The round counts as sent if any
// path took one: the fastest backup hears any.
func (s *Speaker) send(f Frame) error {
	link := s.link
	if f.Path > 0 {
		if n := s.engine.cfg.Paths[f.Path-1].Link; int(n) > len(s.Beside) {
			return errNoLink
		} else if n > 0 {
			link = s.Beside[n-1]
		}
	}
	err := link.Send(f)
	s.engine.sentOver(f.Path, err)
	return err
}

// errNoLink is what becomes of a frame for a link that Speaker.Beside lacks.
var errNoLink = errors.New("carp: send: the path's link was not given to the speaker")

// ClientSide tells what the probe of the client side says, as Engine.ClientSide.
func (s *Speaker) ClientSide(good bool) {
	s.input(func(now Instant) Effects { return s.engine.ClientSide(now, good) })
}
