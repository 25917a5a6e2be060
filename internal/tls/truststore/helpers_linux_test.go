package truststore

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
)

// overlay makes changes to the machine's directories this test's own, in memory, and gives it an
// empty home. The test must be isolated.
func overlay(t *testing.T) (home string) {
	t.Helper()
	memory := t.TempDir()
	mount(t, "tmpfs", memory, "tmpfs", 0, "mode=755")
	for _, dir := range []string{"/etc", "/usr", "/var", "/root", "/opt"} {
		upper, work := filepath.Join(memory, dir, "upper"), filepath.Join(memory, dir, "work")
		mkdir(t, upper)
		mkdir(t, work)
		mount(t, "overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work))
	}
	home = filepath.Join(memory, "home")
	mkdir(t, home)
	return home
}

func mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		t.Fatalf("mount %s: %v", target, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", target, err)
		}
	})
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, data string, mode fs.FileMode) {
	t.Helper()
	mkdir(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// run runs a program that must succeed, as root or a user would, and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// needs skips the test if a program is not installed.
func needs(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := program.Find(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// newStores returns stores with receipts of their own, and the log in the test's.
func newStores(t *testing.T, scope Scope, home string) *Stores {
	return &Stores{
		Scope:    scope,
		Home:     home,
		Receipts: filepath.Join(t.TempDir(), "receipts"),
		Log:      slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// snapshot is what is in these directories: a line for each file, of its kind, mode, owner, and what is in it.
func snapshot(t *testing.T, except string, dirs ...string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || path == except {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			stat := info.Sys().(*syscall.Stat_t)
			line := fmt.Sprintf("%v %d %d ", info.Mode(), stat.Uid, stat.Gid)
			switch {
			case info.Mode()&fs.ModeSymlink != 0:
				target, err := os.Readlink(path)
				if err != nil {
					return err
				}
				line += target
			case info.Mode().IsRegular():
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				sum := sha256.Sum256(data)
				line += hex.EncodeToString(sum[:])
			}
			files[path] = line
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func install(t *testing.T, s *Stores, cert *x509.Certificate, source string) []Step {
	t.Helper()
	steps, err := s.Install(t.Context(), cert, source)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func removal(t *testing.T, s *Stores, also *x509.Certificate) []Step {
	t.Helper()
	steps, err := s.Removal(t.Context(), also)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// do does steps, all of which must be possible.
func do(t *testing.T, s *Stores, steps []Step) {
	t.Helper()
	for _, step := range steps {
		if step.Blocked != "" {
			t.Fatalf("%s %s is blocked: %s", step.Action, step.Place.Path, step.Blocked)
		}
		if err := s.Do(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}
}

// words are steps in short, to be compared.
func words(steps []Step) []string {
	words := []string{}
	for _, s := range steps {
		w := string(s.Action) + " " + string(s.Place.Kind) + " " + s.Fingerprint[:8]
		if s.Done {
			w += " done"
		}
		if s.Blocked != "" {
			w += " blocked: " + s.Blocked
		}
		words = append(words, w)
	}
	return words
}

// nothing fails the test if a certificate is anywhere, or a receipt.
func nothing(t *testing.T, s *Stores, certs ...*x509.Certificate) {
	t.Helper()
	for _, cert := range certs {
		for _, step := range removal(t, s, cert) {
			t.Errorf("left: %s in %s (%s)", step.Fingerprint[:8], step.Place.Path, step.Blocked)
		}
	}
	if _, err := os.Lstat(s.Receipts); err == nil {
		t.Errorf("%s is still there: %v", s.Receipts, snapshot(t, "", s.Receipts))
	}
}

// killVariable has this program act as a process that is killed: see actAndDie.
const killVariable = "TUNNELD_TEST_KILL"

// A killPlan is what such a process does, and when it ends.
type killPlan struct {
	Action   Action
	Scope    Scope
	Home     string
	Receipts string
	Cert     string
	// After is how many points are passed before the end. A point is before and after each
	// program that changes something, and where a receipt is written or may be.
	After int
	// Planned has it print the steps, and do none.
	Planned bool
}

// actAndDie installs or removes, and kills this process at a point. It returns the exit status if there is
// no such point.
func actAndDie(plan string) int {
	var p killPlan
	if err := json.Unmarshal([]byte(plan), &p); err != nil {
		panic(err)
	}
	point := func(string) {
		if p.After--; p.After < 0 {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	real := program.Real()
	played := program.Programs{Find: real.Find, Run: func(ctx context.Context, c program.Command) ([]byte, error) {
		if slices.Contains(c.Args, "-L") || slices.Contains(c.Args, "-K") || slices.Contains(c.Args, "-list") {
			return real.Run(ctx, c)
		}
		point("before")
		out, err := real.Run(ctx, c)
		point("after")
		return out, err
	}}
	s := &Stores{Scope: p.Scope, Home: p.Home, Receipts: p.Receipts, programs: &played, reached: point}
	ctx := context.Background()
	cert := place.Certificate([]byte(p.Cert))
	var steps []Step
	var err error
	if p.Action == Add {
		steps, err = s.Install(ctx, cert, "source")
	} else {
		steps, err = s.Removal(ctx, cert)
	}
	if p.Planned {
		fmt.Println(strings.Join(words(steps), "\n"))
		steps = nil
	}
	for _, step := range steps {
		if err == nil {
			err = s.Do(ctx, step)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

// die runs a plan in a process of its own, and reports whether it was killed.
func die(t *testing.T, p killPlan) bool {
	t.Helper()
	plan, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), killVariable+"="+string(plan))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
		t.Fatalf("%v: %s", err, strings.TrimSpace(string(out)))
	}
	return true
}

// killed installs and removes with processes that are killed at each point in turn, after which a
// removal must leave what was there before.
func killed(t *testing.T, s *Stores, cert *x509.Certificate, state func() any) {
	t.Helper()
	before := state()
	for _, action := range []Action{Add, Remove} {
		for n := 0; ; n++ {
			if action == Remove {
				do(t, s, install(t, s, cert, "source"))
			}
			died := die(t, killPlan{Action: action, Scope: s.Scope, Home: s.Home, Receipts: s.Receipts, Cert: string(place.Encode(cert)), After: n})
			do(t, s, removal(t, s, nil))
			what := fmt.Sprintf("%s killed at point %d", action, n)
			same(t, what, before, state())
			if t.Failed() {
				t.Fatal(what)
			}
			if !died {
				t.Logf("%s: killed at %d points", action, n)
				if n == 0 {
					t.Error("never killed")
				}
				break
			}
			nothing(t, s, cert)
		}
	}
}
