package mysqlcheck

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Of the client/server protocol, version 10.
const (
	protocol10   = 0x0a
	errorPacket  = 0xff
	maxPacket    = 4 << 10 // a greeting has some hundred bytes
	capabilities = 0x0200 | 0x8000
)

// login reads the greeting and, with a user, logs in with an empty password and says
// goodbye. Only an error packet is a refusal, as for HAProxy.
func login(conn io.ReadWriter, user string) (text string, err error) {
	greeting, seq, err := read(conn)
	if err != nil {
		return "", fmt.Errorf("read the greeting: %w", err)
	}
	if err := refused(greeting); err != nil {
		return "", err
	}
	version, _, found := bytes.Cut(greeting[1:], []byte{0})
	if greeting[0] != protocol10 || !found {
		return "", errors.New("no server of MySQL's protocol 10 answers there")
	}
	text = fmt.Sprintf("version %.40s greets", version)
	if user == "" {
		return text, nil
	}
	if err := write(conn, seq+1, loginPacket(user)); err != nil {
		return "", fmt.Errorf("log in: %w", err)
	}
	answer, _, err := read(conn)
	if err != nil {
		return "", fmt.Errorf("log in: %w", err)
	}
	if err := refused(answer); err != nil {
		return "", err
	}
	_ = write(conn, 0, []byte{1}) // COM_QUIT: else the server counts an aborted client
	return fmt.Sprintf("version %.40s takes logins", version), nil
}

// loginPacket is HandshakeResponse41 with an empty password and no database.
func loginPacket(user string) []byte {
	p := binary.LittleEndian.AppendUint32(nil, capabilities)
	p = binary.LittleEndian.AppendUint32(p, 1<<24) // the largest packet
	p = append(p, 33)                              // utf8_general_ci
	p = append(p, make([]byte, 23)...)
	p = append(p, user...)
	return append(p, 0, 0) // the end of the name, and the length of the answer to the challenge
}

// refused returns what an error packet says: its code and, after the SQL state, its text.
func refused(packet []byte) error {
	if packet[0] != errorPacket {
		return nil
	}
	if len(packet) < 3 {
		return errors.New("the server refuses")
	}
	text := packet[3:]
	if len(text) > 6 && text[0] == '#' {
		text = text[6:]
	}
	return fmt.Errorf("the server refuses: error %d: %.200s", binary.LittleEndian.Uint16(packet[1:]), text)
}

func read(r io.Reader) (packet []byte, seq byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, err
	}
	size := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if size == 0 || size > maxPacket {
		return nil, 0, fmt.Errorf("a packet of %d bytes: no MySQL server", size)
	}
	packet = make([]byte, size)
	_, err = io.ReadFull(r, packet)
	return packet, head[3], err
}

func write(w io.Writer, seq byte, payload []byte) error {
	n := len(payload)
	_, err := w.Write(append([]byte{byte(n), byte(n >> 8), byte(n >> 16), seq}, payload...))
	return err
}
