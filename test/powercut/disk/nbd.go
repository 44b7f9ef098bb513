package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// The NBD protocol (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md),
// of which QEMU needs the fixed newstyle negotiation and simple replies.
const (
	greeting      = 0x4e42444d41474943 // NBDMAGIC
	optionMagic   = 0x49484156454f5054 // IHAVEOPT
	optionReply   = 0x0003e889045565a9
	requestMagic  = 0x25609513
	responseMagic = 0x67446698

	fixedNewstyle, noZeroes = 1, 2 // handshake flags

	optionAbort, optionGo                  = 2, 7
	replyAck, replyInfo, replyUnsupported  = 1, 3, 1<<31 + 1
	infoExport                             = 0
	hasFlags, sendFlush                    = 1, 4 // transmission flags
	commandRead, commandWrite, commandDisc = 0, 1, 2
	commandFlush                           = 3
	errorInvalid                           = 22

	maxLength = 32 << 20 // bytes in one request, the most that NBD clients send
)

// Serve serves one client after the other until the listener is closed.
func (d *Disk) Serve(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		err = d.serve(conn)
		conn.Close()
		if err != nil {
			return err
		}
	}
}

// serve serves one client to its end. Once the power is gone it answers nothing
// more: the client waits until somebody ends it.
func (d *Disk) serve(conn net.Conn) error {
	if err := d.negotiate(conn); err != nil {
		return fmt.Errorf("negotiate NBD: %w", err)
	}
	for {
		var r request
		err := binary.Read(conn, binary.BigEndian, &r)
		if gone(err) || err == nil && r.Command == commandDisc {
			return nil
		}
		if err == nil {
			err = d.answer(conn, r)
		}
		if gone(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve NBD: %w", err)
		}
	}
}

// gone reports whether the client has ended, or was killed in the middle of a word.
func gone(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op)
}

// negotiate says what there is and returns when the client has chosen it.
func (d *Disk) negotiate(conn net.Conn) error {
	hello := binary.BigEndian.AppendUint64(nil, greeting)
	hello = binary.BigEndian.AppendUint64(hello, optionMagic)
	hello = binary.BigEndian.AppendUint16(hello, fixedNewstyle|noZeroes)
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	var flags uint32
	if err := binary.Read(conn, binary.BigEndian, &flags); err != nil {
		return err
	}
	for {
		var option struct {
			Magic          uint64
			Option, Length uint32
		}
		if err := binary.Read(conn, binary.BigEndian, &option); err != nil {
			return err
		}
		if option.Magic != optionMagic || option.Length > maxLength {
			return fmt.Errorf("option %+v is none", option)
		}
		if _, err := io.CopyN(io.Discard, conn, int64(option.Length)); err != nil {
			return err
		}
		switch option.Option {
		case optionAbort:
			return io.EOF
		case optionGo:
			info := binary.BigEndian.AppendUint16(nil, infoExport)
			info = binary.BigEndian.AppendUint64(info, uint64(d.size()))
			info = binary.BigEndian.AppendUint16(info, hasFlags|sendFlush)
			return errors.Join(reply(conn, option.Option, replyInfo, info), reply(conn, option.Option, replyAck, nil))
		default:
			if err := reply(conn, option.Option, replyUnsupported, nil); err != nil {
				return err
			}
		}
	}
}

func reply(conn net.Conn, option, kind uint32, data []byte) error {
	out := binary.BigEndian.AppendUint64(nil, optionReply)
	out = binary.BigEndian.AppendUint32(out, option)
	out = binary.BigEndian.AppendUint32(out, kind)
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	_, err := conn.Write(append(out, data...))
	return err
}

// request is the header of a request.
type request struct {
	Magic          uint32
	Flags, Command uint16
	Handle, Offset uint64
	Length         uint32
}

// answer does what is asked. A write or flush that the power cut is in the log and
// has no answer.
func (d *Disk) answer(conn net.Conn, r request) error {
	if r.Magic != requestMagic || r.Length > maxLength {
		return fmt.Errorf("request %+v is none", r)
	}
	out := binary.BigEndian.AppendUint32(nil, responseMagic)
	out = binary.BigEndian.AppendUint32(out, 0)
	out = binary.BigEndian.AppendUint64(out, r.Handle)
	inside := r.Offset <= uint64(d.size()) && uint64(r.Length) <= uint64(d.size())-r.Offset
	on := true
	switch {
	case r.Command == commandRead && inside:
		data := make([]byte, r.Length)
		d.read(int64(r.Offset), data)
		out = append(out, data...)
	case r.Command == commandWrite:
		data := make([]byte, r.Length)
		if _, err := io.ReadFull(conn, data); err != nil {
			return err
		}
		if !inside {
			binary.BigEndian.PutUint32(out[4:], errorInvalid)
			break
		}
		on = d.note(entry{int64(r.Offset), data})
	case r.Command == commandFlush:
		on = d.note(entry{})
	default:
		binary.BigEndian.PutUint32(out[4:], errorInvalid)
	}
	if !on {
		_, _ = io.Copy(io.Discard, conn)
		return io.EOF
	}
	_, err := conn.Write(out)
	return err
}
