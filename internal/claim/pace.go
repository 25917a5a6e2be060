package claim

import "time"

const (
	// paceAtOnce is how many times in a row something is done without waiting.
	paceAtOnce = 3
	// paceMost is the longest time between two times.
	paceMost = 2 * time.Minute
)

// A pace is how often something is done of which it is not known whether it
// helps: at once at first, and then more and more rarely, since whoever undoes it
// does so again. The zero value has not done it yet.
type pace struct {
	times int // in a row
	last  time.Time
}

// due reports whether it may be done now.
func (p *pace) due() bool {
	n := p.times - paceAtOnce
	return n < 0 || time.Since(p.last) >= min(checkEvery<<min(n+1, 8), paceMost)
}

// did notes that it is done now. After a long time in which there was no need
// for it, the row begins anew.
func (p *pace) did() {
	if time.Since(p.last) > 2*paceMost {
		p.times = 0
	}
	p.times++
	p.last = time.Now()
}
