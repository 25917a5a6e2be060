package daemon

import (
	"context"
	"time"

	"github.com/tunneld/tunneld/internal/status"
)

// retryProbe is how long to wait until another probe, if the state does not
// change.
const retryProbe = 500 * time.Millisecond

// awaitReady probes a forward until it is ready or degraded, and was so after a
// probe; or until it cannot become so, or ctx is done. It returns the forward
// as it is then. It probes again when the state is another one than at the last
// probe, and every now and then.
//
// look returns the forward as it is, and what is closed when that may have
// changed; probe reports whether it can be reached.
func awaitReady(ctx context.Context, look func() (status.Forward, <-chan struct{}, error), probe func() bool) (status.Forward, error) {
	var probed status.State // the state at the last probe
	var again time.Time     // when the next one is due
	proven := false
	for {
		f, changed, err := look()
		if err != nil || ctx.Err() != nil || f.State == status.Failed ||
			proven && (f.State == status.Ready || f.State == status.Degraded) {
			return f, err
		}
		if f.State != probed || !time.Now().Before(again) {
			probed, again = f.State, time.Now().Add(retryProbe)
			// What is degraded already will not be made better by a probe.
			if proven = probe() || f.State == status.Degraded; proven {
				continue // what did it make of the state?
			}
		}
		timer := time.NewTimer(time.Until(again))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}
