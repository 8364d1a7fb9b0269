package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// Write writes the frames so far to a .pcapng file, one interface a host, and on a
// Switched LAN the frames that were dropped or corrupted, each on an interface of
// its own. The number of frames that were not kept, for want of room, is in the
// statistics of each interface.
func (c *Capture) Write(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("lab: write capture: %w", err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	c.mu.Lock()
	all := make([]harm, 0, len(c.frames)+len(c.harms))
	for _, f := range c.frames {
		all = append(all, harm{Frame: f})
	}
	all = append(all, c.harms...)
	dropped := maps.Clone(c.dropped)
	c.mu.Unlock()
	// A frame comes before what was done to it at the same instant.
	slices.SortStableFunc(all, func(a, b harm) int { return a.Time.Compare(b.Time) })
	w := pcapng{file: file, ids: map[string]int{}}
	for _, f := range all {
		if err := w.write(f); err != nil {
			return err
		}
	}
	return w.end(dropped)
}

// pcapng writes one file.
type pcapng struct {
	file    io.Writer
	w       *pcapgo.NgWriter
	ids     map[string]int
	written []uint64
}

// intf returns the number of an interface, made if need be.
func (p *pcapng) intf(name string) (id int, err error) {
	if id, known := p.ids[name]; known {
		return id, nil
	}
	intf := pcapgo.NgInterface{Name: name, LinkType: layers.LinkTypeEthernet, TimestampResolution: 9}
	if p.w == nil {
		p.w, err = pcapgo.NewNgWriterInterface(p.file, intf, pcapgo.DefaultNgWriterOptions)
	} else {
		id, err = p.w.AddInterface(intf)
	}
	p.ids[name] = id
	p.written = append(p.written, 0)
	return id, err
}

func (p *pcapng) write(f harm) error {
	id, err := p.intf(f.Host)
	if err != nil {
		return err
	}
	p.written[id]++
	if f.text != "" {
		if err := p.w.Flush(); err != nil {
			return err
		}
		_, err := p.file.Write(commented(id, f))
		return err
	}
	info := gopacket.CaptureInfo{Timestamp: f.Time, CaptureLength: len(f.Data), Length: len(f.Data), InterfaceIndex: id}
	return p.w.WritePacket(info, f.Data)
}

// commented is an Enhanced Packet Block with a comment (draft-ietf-opsawg-pcapng,
// 4.3 and 3.5), which pcapgo cannot write. Numbers are in the byte order of its
// section header: little endian.
func commented(id int, f harm) []byte {
	const block, comment = 6, 1
	var b bytes.Buffer
	put := func(v ...uint32) {
		for _, x := range v {
			b.Write(binary.LittleEndian.AppendUint32(nil, x))
		}
	}
	pad := func(n int) { b.Write(make([]byte, (4-n%4)%4)) }
	padded := func(n int) int { return (n + 3) &^ 3 }
	total := uint32(32 + padded(len(f.Data)) + 4 + padded(len(f.text)) + 4)
	at := uint64(f.Time.UnixNano())
	put(block, total, uint32(id), uint32(at>>32), uint32(at), uint32(len(f.Data)), uint32(len(f.Data)))
	b.Write(f.Data)
	pad(len(f.Data))
	put(comment | uint32(len(f.text))<<16)
	b.WriteString(f.text)
	pad(len(f.text))
	put(0, total) // end of options
	return b.Bytes()
}

// end writes how many frames each interface has, and how many more there were.
func (p *pcapng) end(dropped map[string]uint64) error {
	for name := range dropped {
		if _, err := p.intf(name); err != nil {
			return err
		}
	}
	if p.w == nil {
		return nil
	}
	for name, id := range p.ids {
		err := p.w.WriteInterfaceStats(id, pcapgo.NgInterfaceStatistics{
			PacketsReceived: p.written[id] + dropped[name], PacketsDropped: dropped[name],
		})
		if err != nil {
			return err
		}
	}
	return p.w.Flush()
}
