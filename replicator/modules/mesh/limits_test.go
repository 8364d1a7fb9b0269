package mesh_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/ssh"

	"github.com/carpd/carpd/replicator/modules"
	"github.com/carpd/carpd/replicator/modules/mesh"
)

// call connects as a node that does with its connection what it likes.
func (f *fabric) call(id, to uint8) (ssh.Conn, ssh.Channel) {
	f.t.Helper()
	c, err := f.dial(context.Background(), "", f.address(to))
	if err != nil {
		f.t.Fatal(err)
	}
	conn, channels, requests, err := ssh.NewClientConn(c, "", &ssh.ClientConfig{User: "test",
		Auth: []ssh.AuthMethod{ssh.PublicKeys(key(f.t, id))}, HostKeyCallback: ssh.FixedHostKey(key(f.t, to).PublicKey())})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	go ssh.DiscardRequests(requests)
	go func() {
		for c := range channels {
			_ = c.Reject(ssh.Prohibited, "")
		}
	}()
	ch, requests, err := conn.OpenChannel("modules@carpd", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	return conn, ch
}

// framed puts a head before what a message is.
func framed(how byte, b []byte) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(b)+1)), how), b...)
}

func ended(t testing.TB, what string, c ssh.Conn) {
	t.Helper()
	end := make(chan error, 1)
	go func() { end <- c.Wait() }()
	select {
	case <-end:
	case <-time.After(10 * time.Second):
		t.Errorf("%s: it is open", what)
	}
}

func TestANodeThatCallsAgainHasOneLine(t *testing.T) {
	f := newFabric(t)
	m := f.run(f.config(2, 1))
	first, _ := f.call(1, 2)
	second, _ := f.call(1, 2)
	_, ch := f.call(1, 2)
	ended(t, "the first", first)
	ended(t, "the second", second)
	if _, err := ch.Write(framed(0, modules.Append(nil, modules.Poll{}))); err != nil {
		t.Fatal(err)
	}
	if in := next(t, m); in.Message == nil {
		t.Errorf("the latest is not heard: %v", in.Err)
	}
}

func TestFewLargeMessagesAreInMemory(t *testing.T) {
	const callers, places = 7, 4
	f := newFabric(t)
	var others []uint8
	for i := range uint8(callers) {
		others = append(others, i+2)
	}
	c := f.config(1)
	for _, o := range others {
		c.Peers = append(c.Peers, mesh.Peer{Node: o, Address: "none", Key: key(t, o).PublicKey()})
	}
	m := f.run(c)
	b := framed(0, modules.Append(nil, modules.Data{Module: "users", Content: large(t, 8<<20)})) // more than SSH takes unread
	written := make(chan error, callers)
	for _, o := range others {
		_, ch := f.call(o, 1)
		go func() { _, err := ch.Write(b); written <- err }()
	}
	for range places {
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-written:
		t.Errorf("more than %d were read, and none was taken over", places)
	case <-time.After(500 * time.Millisecond):
	}
	for range callers {
		if in := next(t, m); in.Message == nil {
			t.Fatal(in.Err)
		}
	}
}

// What is small on the line must say before how large it is.
func TestAPackedMessageThatHidesItsSizeEndsTheLine(t *testing.T) {
	msg := modules.Append(nil, modules.Data{Module: "users", Content: make([]byte, 1<<20)})
	z, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	var hidden bytes.Buffer
	s, err := zstd.NewWriter(&hidden)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{msg[:1000], msg[1000:]} {
		_, _ = s.Write(part)
		_ = s.Flush()
	}
	_ = s.Close()
	two := append(z.EncodeAll(msg[:1000], nil), z.EncodeAll(msg[1000:], nil)...)
	for name, b := range map[string][]byte{"no size": hidden.Bytes(), "the size of its first part": two} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t)
			m := f.run(f.config(2, 1))
			_, ch := f.call(1, 2)
			_, _ = ch.Write(framed(1, b))
			if in := next(t, m); in.Message != nil {
				t.Error("it was taken")
			}
		})
	}
}
