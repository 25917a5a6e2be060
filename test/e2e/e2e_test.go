//go:build e2e

// Package e2e runs the two programs against the cluster of $KUBECONFIG, on
// which the sample application of test/cluster must run. See "make e2e".
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/status"
)

const namespace = "task-api"

// bin is where the programs are, for everybody to execute.
var bin string

func TestMain(m *testing.M) {
	switch {
	case os.Getenv("KUBECONFIG") == "":
		fmt.Fprintln(os.Stderr, "e2e: set KUBECONFIG; test/cluster/cluster brings up a cluster")
		os.Exit(2)
	case os.Getenv("TUNNELD_BIN") == "":
		fmt.Fprintln(os.Stderr, "e2e: run it with make e2e")
		os.Exit(2)
	}
	if out, err := exec.Command("kubectl", "-n", namespace, "get", "service/task-api").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: the sample application is not there: kubectl apply -f test/cluster/task-api.yaml\n%s", out)
		os.Exit(2)
	}
	os.Exit(run(m))
}

// run copies the programs to where every user may execute them.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tunneld-bin")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755)
	}
	for _, program := range []string{"tunneld", "tunnelctl"} {
		var data []byte
		if err == nil {
			data, err = os.ReadFile(filepath.Join(os.Getenv("TUNNELD_BIN"), program))
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, program), data, 0o755)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 2
	}
	bin = dir
	return m.Run()
}

// kubectl runs kubectl, which must succeed, and returns what it prints.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("kubectl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// settle has the sample application as every test wants to find it.
func settle(t *testing.T) {
	t.Helper()
	kubectl(t, "-n", namespace, "scale", "deployment/task-api", "--replicas=2")
	kubectl(t, "-n", namespace, "rollout", "status", "deployment/task-api", "--timeout=120s")
}

// A user is somebody who runs a daemon of their own.
type user struct {
	t          *testing.T
	uid        int // 0: whoever runs the test
	dir        string
	kubeconfig string
	daemon     *exec.Cmd
	ended      chan error
	log        bytes.Buffer
}

// newUser makes a user with a home, a kubeconfig, and a configuration that
// names nothing.
func newUser(t *testing.T, uid int) *user {
	t.Helper()
	dir, err := os.MkdirTemp("", "tunneld-e2e")
	if err != nil {
		t.Fatal(err)
	}
	u := &user{t: t, uid: uid, dir: dir, kubeconfig: filepath.Join(dir, "kubeconfig")}
	t.Cleanup(func() {
		u.stop(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", u.log.String())
		}
		os.RemoveAll(dir)
	})
	u.write("kubeconfig", kubectl(t, "config", "view", "--minify", "--flatten"))
	u.write("config.yaml", fmt.Sprintf("version: 1\naddresses: %s\ndns: {listen: \"127.0.0.1:15353\"}\n", nextRange()))
	if uid != 0 {
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

var ranges atomic.Uint32

func nextRange() string {
	n := uint32(os.Getpid()) + ranges.Add(1)
	return fmt.Sprintf("127.%d.%d.0/24", 90+n/256%9, n%256)
}

func (u *user) write(name, text string) {
	u.t.Helper()
	path := filepath.Join(u.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		u.t.Fatal(err)
	}
	if u.uid != 0 {
		os.Chown(path, u.uid, u.uid)
	}
}

// command prepares one of our programs, or any other, as this user.
func (u *user) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	if ours := filepath.Join(bin, program); strings.HasPrefix(program, "tunnel") {
		program = ours
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"HOME=" + u.dir, "PATH=" + os.Getenv("PATH"), "KUBECONFIG=" + u.kubeconfig, "TUNNELD_SOCKET=" + filepath.Join(u.dir, "sock")}
	if u.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.uid)}}
	}
	return cmd
}

// run runs a program, which must succeed, and returns what it prints.
func (u *user) run(program string, args ...string) string {
	u.t.Helper()
	out, err := u.try(program, args...)
	if err != nil {
		u.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

func (u *user) try(program string, args ...string) (string, error) {
	cmd := u.command(u.t.Context(), program, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(errOut.String()))
	}
	return strings.TrimSpace(out.String()), err
}

// start starts the daemon, and waits until it answers.
func (u *user) start() {
	u.t.Helper()
	u.daemon = u.command(context.Background(), "tunneld", "run", "--verbose", "--helper", "none",
		"--config", filepath.Join(u.dir, "config.yaml"), "--state-dir", filepath.Join(u.dir, "state"))
	u.daemon.Stderr = &u.log
	if err := u.daemon.Start(); err != nil {
		u.t.Fatal(err)
	}
	u.ended = make(chan error, 1)
	go func(d *exec.Cmd) { u.ended <- d.Wait() }(u.daemon)
	await.Until(u.t, "the daemon to answer", func() bool {
		_, err := u.try("tunnelctl", "status")
		return err == nil
	})
}

// stop ends the daemon, if it runs, with a signal.
func (u *user) stop(sig syscall.Signal) error {
	if u.daemon == nil {
		return nil
	}
	u.daemon.Process.Signal(sig)
	u.daemon = nil
	select {
	case err := <-u.ended:
		return err
	case <-time.After(30 * time.Second):
		return errors.New("it did not end")
	}
}

// status asks for one forward.
func (u *user) status(name string) status.Forward {
	u.t.Helper()
	var s status.Status
	if err := json.Unmarshal([]byte(u.run("tunnelctl", "status", name, "-o", "json")), &s); err != nil {
		u.t.Fatal(err)
	}
	return s.Forwards[0]
}

// awaitState waits for a forward's state.
func (u *user) awaitState(name string, want status.State) {
	u.t.Helper()
	await.Until(u.t, fmt.Sprintf("%s to be %s", name, want), func() bool { return u.status(name).State == want })
}

// curl fetches a URL of a forward, with the CA verified.
func (u *user) curl(f status.Forward, url string) (string, error) {
	ca := filepath.Join(u.dir, "ca.pem")
	if _, err := os.Stat(ca); err != nil {
		u.write("ca.pem", u.run("tunnelctl", "trust", "--pem"))
	}
	host, port := f.Hostnames[0], "443"
	if i := strings.LastIndex(f.URL, ":"); i > len("https:") {
		port = f.URL[i+1:]
	}
	return u.try("curl", "-sS", "--fail", "--max-time", "40", "--cacert", ca, "--resolve", host+":"+port+":"+f.Address, url)
}

// pod asks which pod answers.
func (u *user) pod(f status.Forward) (string, error) {
	text, err := u.curl(f, f.URL+"/")
	if err != nil {
		return "", err
	}
	var answer struct{ Pod string }
	err = json.Unmarshal([]byte(text), &answer)
	return answer.Pod, err
}

// echo sends a line to a raw port, and reads it back.
func echo(addr string) error { return echoWithin(addr, 40*time.Second) }

func echoWithin(addr string, limit time.Duration) error {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return err
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != "hello\n" {
		return fmt.Errorf("got %q back", got)
	}
	return nil
}

// listen is where a forward's port is served.
func listen(t *testing.T, f status.Forward, port uint16) string {
	t.Helper()
	for _, p := range f.Ports {
		if p.Port == port {
			return p.Listen
		}
	}
	t.Fatalf("%s has no port %d: %+v", f.Name, port, f.Ports)
	return ""
}
