// Package script_test runs the two programs as their users do. Each file in
// testdata is a script, to be read as documentation of what they print; see
// the commands below for what a script can do besides running programs.
package script_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/test/internal/built"
)

// bin is where the programs are.
var bin string

func TestMain(m *testing.M) {
	demo.RedirectKlog(nil)
	os.Exit(built.Main(m, &bin, "../../cmd/tunneld", "../../cmd/tunnelctl"))
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Setup:               setup,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cluster":    cmdCluster,
			"daemon":     cmdDaemon,
			"end":        cmdEnd,
			"setenv":     cmdSetenv,
			"hold":       cmdHold,
			"request":    cmdRequest,
			"answered":   cmdAnswered,
			"scale":      cmdScale,
			"apiserver":  cmdAPIServer,
			"hangup":     cmdHangup,
			"exits":      cmdExits,
			"eventually": cmdEventually,
			"background": cmdBackground,
			"printed":    cmdPrinted,
		},
	})
}

// A world is what one script plays in.
type world struct {
	cluster *demo.Cluster
	daemon  *exec.Cmd
	ended   chan error
	log     bytes.Buffer

	background *exec.Cmd
	printed    lockedBuffer // by it

	held     []net.Conn
	answered chan error // how the request ended
}

// A lockedBuffer may be read while it is written to.
type lockedBuffer struct {
	mu     sync.Mutex // guards the following
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

type worldKey struct{}

// ranges gives each script's daemon addresses of its own.
var ranges atomic.Uint32

func setup(env *testscript.Env) error {
	w := new(world)
	env.Values[worldKey{}] = w
	env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("XDG_RUNTIME_DIR", "")
	env.Setenv("XDG_CONFIG_HOME", "")
	env.Setenv("XDG_STATE_HOME", "")
	env.Setenv("KUBECONFIG", filepath.Join(env.WorkDir, "kubeconfig"))
	env.Setenv("TUNNELD_SOCKET", filepath.Join(env.WorkDir, "sock"))
	n := uint32(os.Getpid())*5 + ranges.Add(1)
	env.Setenv("RANGE", fmt.Sprintf("127.%d.%d.0/24", 200+n/256%40, n%256))
	env.Defer(func() {
		if w.background != nil {
			w.background.Process.Kill()
			w.background.Wait()
		}
		w.stop(os.Kill)
		for _, c := range w.held {
			c.Close()
		}
		if w.cluster != nil {
			w.cluster.Close()
		}
	})
	return nil
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// cluster [PLUGIN] starts the embedded cluster with the sample application, and writes
// $KUBECONFIG. With a plugin, its credentials are had from that, and the token is in a
// file of that name.
func cmdCluster(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	var err error
	w.cluster, err = demo.Start(demo.Options{})
	ts.Check(err)
	ts.Check(w.cluster.Run(demo.TaskAPI()...))
	k := demo.Kubeconfig{Context: "demo", Namespace: "task-api"}
	if len(args) > 0 {
		k.Exec = &clientcmdapi.ExecConfig{
			Command: args[0], APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
		}
		ts.Check(os.WriteFile(ts.MkAbs("token"), []byte(w.cluster.Token()), 0o600))
	}
	ts.Check(w.cluster.WriteKubeconfig(ts.Getenv("KUBECONFIG"), k))
}

// scale NAME N scales a Deployment of the sample application.
func cmdScale(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(worldOf(ts).cluster.Scale("task-api", args[0], n))
}

// apiserver stop|start ends the API server, and starts it again.
func cmdAPIServer(ts *testscript.TestScript, neg bool, args []string) {
	if args[0] == "stop" {
		worldOf(ts).cluster.StopAPI()
		return
	}
	ts.Check(worldOf(ts).cluster.StartAPI())
}

// daemon starts "tunneld run" with the arguments, and waits until it answers.
// If there is no config.yaml, it writes one that suits tests.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	config := ts.MkAbs("config.yaml")
	if _, err := os.Stat(config); errors.Is(err, os.ErrNotExist) {
		ts.Check(os.WriteFile(config, []byte(fmt.Sprintf(
			"version: 1\naddresses: %s\ndns: {listen: \"127.0.0.1:0\"}\ngateway: {http: 0, https: 0}\n", ts.Getenv("RANGE"))), 0o600))
	}
	w.daemon = exec.Command(filepath.Join(bin, "tunneld"), append([]string{"run", "--helper", "none", "--config", config, "--state-dir", ts.MkAbs("state")}, args...)...)
	for _, name := range []string{"HOME", "PATH", "TUNNELD_SOCKET"} {
		w.daemon.Env = append(w.daemon.Env, name+"="+ts.Getenv(name))
	}
	w.log.Reset()
	w.daemon.Stderr = &w.log
	ts.Check(w.daemon.Start())
	w.ended = make(chan error, 1)
	go func() { w.ended <- w.daemon.Wait() }()
	client := &localapi.Client{Socket: ts.Getenv("TUNNELD_SOCKET")}
	waitFor(ts, "the daemon to answer", func() bool {
		select {
		case err := <-w.ended:
			ts.Fatalf("the daemon ended: %v\n%s", err, w.log.String())
		default:
		}
		_, err := client.Version(context.Background())
		return err == nil
	})
}

// end [kill|twice] ends the daemon with SIGTERM, which must be clean, or
// SIGKILL. Connections that are held must end with a reset.
func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	how := strings.Join(args, " ")
	if how == "kill" {
		w.stop(os.Kill)
		return
	}
	if how == "twice" {
		w.daemon.Process.Signal(terminate)
	}
	err := w.stop(terminate)
	for _, c := range w.held {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			ts.Fatalf("a connection that is held ends with %v; want a reset", err)
		}
		c.Close()
	}
	w.held = nil
	if err != nil {
		ts.Fatalf("the daemon ended with %v\n%s", err, w.log.String())
	}
}

func (w *world) stop(sig os.Signal) error {
	if w.daemon == nil {
		return nil
	}
	w.daemon.Process.Signal(sig)
	w.daemon = nil
	select {
	case err := <-w.ended:
		return err
	case <-time.After(20 * time.Second):
		return errors.New("it did not end")
	}
}

// setenv NAME REGEXP sets a variable to what the last program printed and the
// expression's group matches.
func cmdSetenv(ts *testscript.TestScript, neg bool, args []string) {
	match := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if match == nil {
		ts.Fatalf("%s is not in:\n%s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], match[1])
}

// hold ADDR opens a connection to an echo, and holds it.
func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	c, err := net.Dial("tcp", args[0])
	ts.Check(err)
	w.held = append(w.held, c)
	c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprint(c, "hello")
	_, err = io.ReadFull(c, make([]byte, 5))
	ts.Check(err)
}

// request URL makes a request in the background, and waits until task-api has
// it.
func cmdRequest(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	w.answered = make(chan error, 1)
	before := w.cluster.Dials("task-api", "", demo.HTTPPort)
	go func() {
		resp, err := http.Get(args[0])
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
		}
		w.answered <- err
	}()
	waitFor(ts, "the request to be there", func() bool { return w.cluster.Dials("task-api", "", demo.HTTPPort) > before })
}

// answered wants the request to have been answered; ! answered, that it was cut.
func cmdAnswered(ts *testscript.TestScript, neg bool, args []string) {
	if err := <-worldOf(ts).answered; (err != nil) != neg {
		ts.Fatalf("the request ended with %v", err)
	}
}

// hangup sends SIGHUP to the daemon.
func cmdHangup(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(worldOf(ts).daemon.Process.Signal(hangup))
}

// background PROGRAM ARG... runs a program until the script ends.
func cmdBackground(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	w.background = command(ts, args[0], args[1:]...)
	w.background.Stdout = &w.printed
	ts.Check(w.background.Start())
}

// printed TEXT waits until the program in the background has printed the text.
func cmdPrinted(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	waitFor(ts, fmt.Sprintf("%q", args[0]), func() bool { return strings.Contains(w.printed.String(), args[0]) })
}

// command prepares one of our programs in the script's environment.
func command(ts *testscript.TestScript, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, program), args...)
	for _, name := range []string{"HOME", "PATH", "KUBECONFIG", "TUNNELD_SOCKET"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	return cmd
}

// exits STATUS PROGRAM ARG... runs a program that must exit with that status.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d; want %d", got, want)
	}
}

// eventually TEXT PROGRAM ARG... runs a program until it prints the text.
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	var out []byte
	defer func() { ts.Logf("%s", out) }()
	waitFor(ts, fmt.Sprintf("%q", args[0]), func() bool {
		out, _ = command(ts, args[1], args[2:]...).CombinedOutput()
		return bytes.Contains(out, []byte(args[0]))
	})
}

func waitFor(ts *testscript.TestScript, what string, ok func() bool) {
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			ts.Fatalf("waited in vain for %s", what)
		}
	}
}
