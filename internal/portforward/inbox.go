package portforward

import "sync"

// maxUnread is how many bytes are kept for the owner of a lease that shares a
// connection.
const maxUnread = 256 << 10

// firstChunk is how large an inbox's first chunk is.
const firstChunk = 4 << 10

// An inbox holds what has come for a lease until its owner takes it, so that the
// reader need not wait for that.
type inbox struct {
	ready chan struct{} // cap 1: there is something to take
	room  chan struct{} // cap 1: there is less, or somebody asks to look again

	mu     sync.Mutex // guards the following
	chunks [][]byte
	size   int    // of all chunks
	spare  []byte // a chunk for later
}

func newInbox() *inbox {
	return &inbox{ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// poke has who waits for room look again.
func (b *inbox) poke() { poke(b.room) }

func (b *inbox) fits(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size+n <= maxUnread
}

func (b *inbox) isEmpty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size == 0
}

// put appends a copy of p.
func (b *inbox) put(p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size += len(p)
	for len(p) > 0 {
		last := len(b.chunks) - 1
		if last < 0 || len(b.chunks[last]) == cap(b.chunks[last]) {
			b.chunks = append(b.chunks, b.newChunk(len(p)))
			last++
		}
		chunk := b.chunks[last]
		n := min(len(p), cap(chunk)-len(chunk))
		b.chunks[last] = append(chunk, p[:n]...)
		p = p[n:]
	}
	poke(b.ready)
}

// newChunk returns an empty chunk, larger ones where much comes; mu is held.
func (b *inbox) newChunk(n int) []byte {
	if spare := b.spare; spare != nil && (n <= cap(spare) || cap(spare) == maxDataLen) {
		b.spare = nil
		return spare[:0]
	}
	size := firstChunk
	if last := len(b.chunks) - 1; last >= 0 {
		size = 2 * cap(b.chunks[last])
	}
	return make([]byte, 0, min(max(size, n), maxDataLen))
}

// take returns the oldest chunk, or nil.
func (b *inbox) take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.chunks) == 0 {
		return nil
	}
	chunk := b.chunks[0]
	b.chunks[0] = nil
	b.chunks = b.chunks[1:]
	b.size -= len(chunk)
	poke(b.room)
	return chunk
}

// giveBack takes back a chunk that was taken and is done with.
func (b *inbox) giveBack(chunk []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if cap(chunk) > cap(b.spare) {
		b.spare = chunk
	}
}
