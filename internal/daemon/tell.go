package daemon

import (
	"fmt"
	"strings"

	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/systemd"
)

// tell tells the service manager how things are.
func (d *Daemon) tell(what ...systemd.Notification) {
	if err := d.Manager.Notify(what...); err != nil {
		d.Log.Debug("the service manager is not told", "err", err)
	}
}

// tellStates has the service manager show what is forwarded; applying is held.
func (d *Daemon) tellStates(n map[status.State]int) {
	var parts []string
	for _, state := range status.States() {
		if n[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[state], state))
		}
	}
	line := "nothing is forwarded"
	if len(parts) > 0 {
		line = "forwards: " + strings.Join(parts, ", ")
	}
	if d.Manager != nil && line != d.told {
		d.told = line
		d.tell(systemd.Status(line))
	}
}
