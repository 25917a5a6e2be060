package daemon_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/status"
)

// With access: me other users reach neither the gateway nor a raw port, from when the
// file says so, and until it no longer does.
func TestAccess(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("to be another user takes root")
	}
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip(err)
	}
	h := newHarness(t, patient, "name: api, target: task-api")
	var f status.Forward
	await.Until(t, "the ports to be bound", func() bool {
		f = h.forward(t, "api")
		return len(f.Ports) > 0 && f.Ports[0].Listen != ""
	})
	urls := []string{"http://" + f.Ports[0].Listen + "/health", strings.Replace(f.URL, "api.local", f.Address, 1) + "/health"}
	// reaches asks as a user, and reports whether there was an answer.
	reaches := func(uid uint32, url string) bool {
		cmd := exec.CommandContext(t.Context(), curl, "-sk", "--noproxy", "*", "--max-time", "30", url)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd.Run() == nil
	}
	before, err := os.ReadFile(h.config)
	if err != nil {
		t.Fatal(err)
	}
	const other = 65534
	expect := func(when string, in bool) {
		t.Helper()
		await.Until(t, when, func() bool { return reaches(other, urls[0]) == in })
		for _, url := range urls {
			if !reaches(0, url) || reaches(other, url) != in {
				t.Errorf("%s, %s: root reaches it: %v, another user: %v; want that to be %v", when, url, reaches(0, url), !in, in)
			}
		}
	}
	expect("at first", true)
	h.writeConfig(t, string(before)+"access: me\n")
	expect("with access: me", false)
	h.writeConfig(t, string(before))
	expect("without it", true)
}
