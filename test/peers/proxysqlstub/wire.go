package proxysqlstub

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// Capabilities of the protocol that the stand-in offers or looks at.
const (
	capLongPassword = 1 << 0
	capFoundRows    = 1 << 1
	capLongFlag     = 1 << 2
	capWithDB       = 1 << 3
	capProtocol41   = 1 << 9
	capTransactions = 1 << 13
	capSecure       = 1 << 15
	capPluginAuth   = 1 << 19

	offered = capLongPassword | capFoundRows | capLongFlag | capWithDB | capProtocol41 | capTransactions | capSecure | capPluginAuth
)

// Commands of the protocol.
const (
	comQuit   = 1
	comInitDB = 2
	comQuery  = 3
	comPing   = 14
)

const (
	maxPart   = 1<<24 - 1  // bytes of one packet; a longer one comes in parts
	maxPacket = 64<<20 + 1 // bytes of all its parts

	nativePassword = "mysql_native_password"
	autocommit     = 2  // of the status
	charset        = 33 // utf8
	typeLongLong   = 8
	typeVarString  = 253
)

// sqlError is an error as a client is told it.
type sqlError struct {
	number uint16
	state  string
	text   string
}

func (e *sqlError) Error() string { return e.text }

// denied is how nearly every error looks.
func denied(format string, a ...any) *sqlError {
	return &sqlError{1045, "28000", fmt.Sprintf(format, a...)}
}

// wire is a connection of the MySQL protocol.
type wire struct {
	net.Conn
	r   *bufio.Reader
	w   *bufio.Writer
	seq byte
}

func newWire(c net.Conn) *wire { return &wire{Conn: c, r: bufio.NewReader(c), w: bufio.NewWriter(c)} }

// read returns the next packet, put together.
func (w *wire) read() ([]byte, error) {
	var all []byte
	for {
		var head [4]byte
		if _, err := io.ReadFull(w.r, head[:]); err != nil {
			return nil, err
		}
		n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
		w.seq = head[3] + 1
		if len(all)+n > maxPacket {
			return nil, errors.New("packet too large")
		}
		part := make([]byte, n)
		if _, err := io.ReadFull(w.r, part); err != nil {
			return nil, err
		}
		if all = append(all, part...); n < maxPart {
			return all, nil
		}
	}
}

// write sends a packet, in parts if it must. Flush follows.
func (w *wire) write(b []byte) {
	for {
		n := min(len(b), maxPart)
		_, _ = w.w.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16), w.seq}) // Flush returns the error
		_, _ = w.w.Write(b[:n])
		w.seq++
		if b = b[n:]; n < maxPart {
			return
		}
	}
}

func (w *wire) ok(changed int64, info string) error {
	b := appendInt([]byte{0}, uint64(changed))
	b = append(b, 0, autocommit, 0, 0, 0)
	w.write(append(b, info...))
	return w.w.Flush()
}

func (w *wire) fail(e *sqlError) error {
	b := binary.LittleEndian.AppendUint16([]byte{0xff}, e.number)
	w.write([]byte(string(b) + "#" + e.state + e.text))
	return w.w.Flush()
}

// answer sends a result: an OK packet where it has no columns.
func (w *wire) answer(r *result) error {
	if len(r.columns) == 0 {
		return w.ok(r.changed, r.info)
	}
	w.write(appendInt(nil, uint64(len(r.columns))))
	for _, name := range r.columns {
		w.write(column(name, r.numeric))
	}
	w.eof()
	for _, row := range r.rows {
		var b []byte
		for _, cell := range row {
			if cell == nil {
				b = append(b, 0xfb)
			} else {
				b = appendText(b, *cell)
			}
		}
		w.write(b)
	}
	w.eof()
	return w.w.Flush()
}

func (w *wire) eof() { w.write([]byte{0xfe, 0, 0, autocommit, 0}) }

// column announces one: everything is text but what was made by hand.
func column(name string, numeric bool) []byte {
	b := appendText(nil, "def")
	for _, part := range []string{"", "", "", name, ""} {
		b = appendText(b, part)
	}
	b = append(b, 12, charset, 0)
	if numeric {
		b = binary.LittleEndian.AppendUint32(b, 20)
		return append(b, typeLongLong, 0x20, 0, 0, 0, 0) // unsigned
	}
	b = binary.LittleEndian.AppendUint32(b, 255)
	return append(b, typeVarString, 0, 0, 0, 0, 0)
}

// appendInt appends an integer in the form with a length.
func appendInt(b []byte, n uint64) []byte {
	switch {
	case n < 251:
		return append(b, byte(n))
	case n < 1<<16:
		return binary.LittleEndian.AppendUint16(append(b, 0xfc), uint16(n))
	case n < 1<<24:
		return append(b, 0xfd, byte(n), byte(n>>8), byte(n>>16))
	}
	return binary.LittleEndian.AppendUint64(append(b, 0xfe), n)
}

func appendText(b []byte, text string) []byte {
	return append(appendInt(b, uint64(len(text))), text...)
}

// greeting is what a client says of itself.
type greeting struct {
	user, plugin string
	proof        []byte
}

// greet sends the handshake and returns what the client says, and the salt that its
// proof is made with.
func (w *wire) greet(id uint32, version string) (g greeting, salt []byte, err error) {
	salt = make([]byte, 20)
	_, _ = rand.Read(salt) // never fails
	for i := range salt {
		salt[i] = salt[i]%93 + 33 // no zero
	}
	b := append([]byte{10}, version...)
	b = binary.LittleEndian.AppendUint32(append(b, 0), id)
	b = append(append(b, salt[:8]...), 0)
	b = binary.LittleEndian.AppendUint16(b, offered&0xffff)
	b = append(b, charset, autocommit, 0)
	b = binary.LittleEndian.AppendUint16(b, offered>>16)
	b = append(append(b, 21), make([]byte, 10)...)
	b = append(append(b, salt[8:]...), 0)
	w.seq = 0
	w.write([]byte(string(b) + nativePassword + "\x00"))
	if err := w.w.Flush(); err != nil {
		return g, nil, err
	}
	b, err = w.read()
	if err != nil {
		return g, nil, err
	}
	if g, err = parseGreeting(b); err != nil {
		return g, nil, err
	}
	if g.plugin != "" && g.plugin != nativePassword {
		w.write([]byte("\xfe" + nativePassword + "\x00" + string(salt) + "\x00"))
		if err := w.w.Flush(); err != nil {
			return g, nil, err
		}
		g.proof, err = w.read()
	}
	return g, salt, err
}

// parseGreeting reads the answer of a client to the handshake.
func parseGreeting(b []byte) (g greeting, err error) {
	const fixed = 32
	if len(b) < fixed || binary.LittleEndian.Uint32(b)&capProtocol41 == 0 {
		return g, errors.New("not the protocol of MySQL 4.1")
	}
	caps := binary.LittleEndian.Uint32(b)
	b = b[fixed:]
	text := func() string {
		s, rest, _ := bytes.Cut(b, []byte{0})
		b = rest
		return string(s)
	}
	g.user = text()
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return g, errors.New("a client without a proof")
	}
	g.proof, b = b[1:1+int(b[0])], b[1+int(b[0]):]
	if caps&capWithDB != 0 {
		text()
	}
	if caps&capPluginAuth != 0 {
		g.plugin = text()
	}
	return g, nil
}

// proves reports whether a proof belongs to a password: plain text, or * and the SHA1
// form in hexadecimal.
func proves(proof, salt []byte, password string) bool {
	if password == "" || len(proof) == 0 {
		return password == "" && len(proof) == 0
	}
	stored, err := hex.DecodeString(strings.TrimPrefix(password, "*"))
	if err != nil || len(stored) != sha1.Size || password[0] != '*' {
		once := sha1.Sum([]byte(password))
		twice := sha1.Sum(once[:])
		stored = twice[:]
	}
	if len(proof) != sha1.Size {
		return false
	}
	mask := sha1.Sum(append(append([]byte{}, salt...), stored...))
	for i := range mask {
		mask[i] ^= proof[i]
	}
	again := sha1.Sum(mask[:])
	return subtle.ConstantTimeCompare(again[:], stored) == 1
}
