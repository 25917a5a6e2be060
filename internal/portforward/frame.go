package portforward

import (
	"encoding/binary"
	"fmt"
)

// Frames of SPDY/3.1, as far as a port-forward client needs them. Numbers are
// big-endian. The peer is always a Kubernetes streaming server, which sends
// neither compressed data nor server push.

const (
	frameHeaderLen = 8
	maxDataLen     = 32 << 10 // what we put into one DATA frame

	spdyVersion = 3
)

// Control frame types.
const (
	typeSynStream = 1
	typeSynReply  = 2
	typeRstStream = 3
	typePing      = 6
	typeGoAway    = 7
)

const flagFin = 0x01

// A frameHeader is the first eight bytes of any frame.
type frameHeader struct {
	control bool
	kind    uint16 // of a control frame
	stream  uint32 // of a data frame
	flags   byte
	length  int // of what follows the header
}

func (h frameHeader) fin() bool { return h.flags&flagFin != 0 }

func parseFrameHeader(b []byte) (frameHeader, error) {
	word := binary.BigEndian.Uint32(b)
	h := frameHeader{
		flags:  b[4],
		length: int(b[5])<<16 | int(b[6])<<8 | int(b[7]),
	}
	if word>>31 == 0 {
		h.stream = word
		return h, nil
	}
	h.control, h.kind = true, uint16(word)
	if version := uint16(word>>16) & 0x7fff; version != spdyVersion {
		return h, fmt.Errorf("spdy: control frame of version %d; want %d", version, spdyVersion)
	}
	return h, nil
}

func appendControlHeader(dst []byte, kind uint16, flags byte, length int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, 1<<31|spdyVersion<<16|uint32(kind))
	return binary.BigEndian.AppendUint32(dst, uint32(flags)<<24|uint32(length))
}

func appendDataHeader(dst []byte, stream uint32, flags byte, length int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, stream)
	return binary.BigEndian.AppendUint32(dst, uint32(flags)<<24|uint32(length))
}

func appendPing(dst []byte, id uint32) []byte {
	dst = appendControlHeader(dst, typePing, 0, 4)
	return binary.BigEndian.AppendUint32(dst, id)
}

// statusCancel: the client does not want the stream any more.
const statusCancel = 5

func appendRstStream(dst []byte, stream uint32) []byte {
	dst = appendControlHeader(dst, typeRstStream, 0, 8)
	dst = binary.BigEndian.AppendUint32(dst, stream)
	return binary.BigEndian.AppendUint32(dst, statusCancel)
}

// zlibPrefix begins the zlib stream that all header blocks of a connection
// share: deflate with a 32 KiB window and a preset dictionary, then the
// Adler-32 of SPDY/3's dictionary.
var zlibPrefix = []byte{0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2}

// flushBlock is an empty stored block. A decompressor hands out what it has
// when it meets one, without asking for the next block.
var flushBlock = []byte{0, 0, 0, 0xff, 0xff}

// appendHeaderBlock appends name-value pairs as a SPDY/3 header block. The
// block is framed for zlib but stored, not compressed: a compressor would cost
// about 1 MiB for each upgraded connection, to save a few dozen bytes. first
// says that it is the first block of its connection.
func appendHeaderBlock(dst []byte, first bool, pairs ...string) []byte {
	if first {
		dst = append(dst, zlibPrefix...)
	}
	size := 4
	for _, s := range pairs {
		size += 4 + len(s)
	}
	dst = append(dst, 0) // a stored block that is not the last
	dst = binary.LittleEndian.AppendUint16(dst, uint16(size))
	dst = binary.LittleEndian.AppendUint16(dst, ^uint16(size))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(pairs)/2))
	for _, s := range pairs {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(s)))
		dst = append(dst, s...)
	}
	return append(dst, flushBlock...)
}

// appendSynStream opens a stream with the given headers: pairs of a lower-case
// name and a value.
func appendSynStream(dst []byte, stream uint32, flags byte, first bool, pairs ...string) []byte {
	start := len(dst)
	dst = appendControlHeader(dst, typeSynStream, flags, 0)
	dst = binary.BigEndian.AppendUint32(dst, stream)
	dst = append(dst, 0, 0, 0, 0, 0, 0) // no associated stream, highest priority, no slot
	dst = appendHeaderBlock(dst, first, pairs...)
	length := uint32(len(dst) - start - frameHeaderLen)
	binary.BigEndian.PutUint32(dst[start+4:], uint32(flags)<<24|length)
	return dst
}
