package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/daemon"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/usage"
	"github.com/tunneld/tunneld/internal/version"
)

const (
	demoContext   = "demo"
	demoNamespace = "task-api"
	demoService   = "task-api"
	demoSocket    = "tunneld.sock"
	// demoWait bounds each wait of the demo: on a busy machine everything
	// takes longer, but not that long.
	demoWait = 20 * time.Second
)

func newDemo(stdout, stderr io.Writer) *cobra.Command {
	var check, verbose bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it all on an embedded cluster, without root or a kubeconfig",
		Long: `Start an embedded Kubernetes cluster and a daemon of its own in a temporary
directory, forward the sample Service task-api, and print what to try. It uses
loopback addresses, high ports and a control socket of its own, so it runs
beside an installed daemon, and leaves nothing behind.`,
		Args: usage.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The terminal may be closed, and so may what reads the output.
			signal.Ignore(syscall.SIGPIPE)
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			context.AfterFunc(ctx, stop) // a second signal ends the process at once
			log := io.Discard
			if verbose {
				log = stderr
			}
			return runDemo(ctx, stdout, log, check)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "try everything, print each step with its time, and end")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print the daemon's log")
	return cmd
}

// A stage is what the demo happens on.
type stage struct {
	dir     string
	cluster *demo.Cluster
	daemon  *daemon.Daemon
	client  *localapi.Client
	steps   *steps
	forward status.Forward
	dns     netip.AddrPort
}

// runDemo sets the stage, shows or checks, and clears up.
func runDemo(ctx context.Context, stdout, log io.Writer, check bool) (err error) {
	s := &stage{steps: &steps{out: stdout}}
	if s.dir, err = demoDir(); err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	defer os.RemoveAll(s.dir)
	logger := newLog(log, true)

	err = s.steps.do("start an embedded cluster with the sample Service", func() (string, error) {
		if s.cluster, err = demo.Start(demo.Options{Log: logger}); err != nil {
			return "", err
		}
		return s.cluster.URL(), s.cluster.Run(demo.TaskAPI()...)
	})
	if s.cluster != nil {
		defer s.cluster.Close()
	}
	if err != nil {
		return err
	}
	s.daemon = &daemon.Daemon{
		ConfigPath: filepath.Join(s.dir, "config.yaml"),
		StateDir:   filepath.Join(s.dir, "state"),
		Socket:     filepath.Join(s.dir, demoSocket),
		Version:    version.Get(),
		Log:        logger,
	}
	s.client = &localapi.Client{Socket: s.daemon.Socket}

	release, err := s.prepare()
	if err != nil {
		return err
	}
	defer release()

	// The daemon outlives the interrupt for as long as it takes to say so.
	running, cancel := context.WithCancel(context.Background())
	started, ended := make(chan struct{}), make(chan struct{})
	s.daemon.Started = func() { close(started) }
	var runErr error // once ended is closed
	go func() {
		defer close(ended)
		runErr = s.daemon.Run(running)
	}()
	defer func() {
		cancel()
		<-ended
		if err == nil {
			err = runErr
		}
	}()
	err = s.steps.do("start a daemon of its own", func() (string, error) {
		select {
		case <-started:
			return s.dir, nil
		case <-ended:
			return "", runErr
		}
	})
	if err != nil {
		return err
	}
	if err := s.steps.do("tunnelctl add "+demoService, func() (string, error) { return s.add(ctx) }); err != nil {
		return err
	}
	if check {
		return s.check(ctx)
	}
	s.describe(stdout)
	select {
	case <-ctx.Done():
		fmt.Fprintln(stdout, "\nstopped, and nothing is left behind")
		return nil
	case <-ended:
		return runErr
	}
}

// demoDir makes the demo's directory: where temporary ones are, or in /tmp if
// the path of a socket would be too long there.
func demoDir() (string, error) {
	const pattern = "tunneld-demo-"
	dir, err := os.MkdirTemp("", pattern)
	if err != nil || localapi.Fits(filepath.Join(dir, demoSocket)) {
		return dir, err
	}
	if err := os.Remove(dir); err != nil {
		return "", err
	}
	return os.MkdirTemp("/tmp", pattern)
}

// prepare writes the kubeconfig and the daemon's configuration. The addresses
// and ports in it are this demo's until they are released.
func (s *stage) prepare() (release func(), err error) {
	kubeconfig := filepath.Join(s.dir, "kubeconfig")
	if err := s.cluster.WriteKubeconfig(kubeconfig, demo.Kubeconfig{Context: demoContext, Namespace: demoNamespace}); err != nil {
		return nil, err
	}
	addresses, releaseAddresses := claimRange()
	http, https, releasePorts := claimPorts()
	release = func() {
		releaseAddresses()
		releasePorts()
	}
	text := fmt.Sprintf(`# The demo's own configuration: another address range and other ports than the
# defaults, so that it runs beside an installed daemon.
version: 1
addresses: %v
dns: {listen: "127.0.0.1:25353"}
gateway: {http: %d, https: %d}
`, addresses, http, https)
	if err := os.WriteFile(s.daemon.ConfigPath, []byte(text), 0o600); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// claimRange finds a range of addresses that no other demo has. The claim is a
// listener on one that no forward gets.
func claimRange() (addresses netip.Prefix, release func()) {
	first := os.Getpid() % 250
	for i := range 250 {
		base := netip.AddrFrom4([4]byte{127, 78, byte(1 + (first+i)%250), 0})
		l, err := net.Listen("tcp", netip.AddrPortFrom(base, 25353).String())
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil { // a system without these addresses will say so later
			l = nil
		}
		return netip.PrefixFrom(base, 24), closer(l)
	}
	return netip.MustParsePrefix("127.78.0.0/24"), func() {}
}

// claimPorts finds a pair of high ports for the gateway that nothing listens on,
// at any address; 0 is any. The claim is a listener beside them.
func claimPorts() (http, https uint16, release func()) {
	for _, base := range []uint16{8000, 18000, 28000} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+79))
		if err != nil {
			continue
		}
		if free(base+80) && free(base+443) {
			return base + 80, base + 443, closer(l)
		}
		l.Close()
	}
	return 0, 0, func() {}
}

func closer(l net.Listener) func() {
	if l == nil {
		return func() {}
	}
	return func() { l.Close() }
}

// free reports whether a port is free at every loopback address.
func free(port uint16) bool {
	at := fmt.Sprintf("127.0.0.1:%d", port)
	// On some systems a listener on all addresses does not keep one address
	// from being bound, nor the other way round: it would just get the wrong
	// half of the connections.
	if c, err := net.DialTimeout("tcp", at, time.Second); err == nil {
		c.Close()
		return false
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// add does what "tunnelctl add task-api --wait" does.
func (s *stage) add(ctx context.Context) (string, error) {
	_, err := s.client.Add(ctx, localapi.AddRequest{
		Target:     demoService,
		Kubeconfig: filepath.Join(s.dir, "kubeconfig"),
	})
	if err != nil {
		return "", err
	}
	if s.forward, err = s.client.Wait(ctx, demoService, demoWait); err != nil {
		return "", err
	}
	if s.forward.State != status.Ready {
		return "", fmt.Errorf("it is %s: %s", s.forward.State, s.forward.Cause)
	}
	all, err := s.client.Status(ctx)
	if err != nil {
		return "", err
	}
	if s.dns, err = netip.ParseAddrPort(all.DNS.Listen); err != nil {
		return "", fmt.Errorf("no DNS: %s", all.DNS.Error)
	}
	return fmt.Sprintf("%s, %d of %d pods, %s", s.forward.State, s.forward.Endpoints.Ready, s.forward.Endpoints.Total, s.forward.URL), nil
}

// describe prints what a user can try.
func (s *stage) describe(out io.Writer) {
	f := s.forward
	_, port, _ := strings.Cut(strings.TrimPrefix(f.URL, "https://"), ":")
	pem := filepath.Join(s.dir, "ca.pem")
	if text, err := s.client.RootPEM(context.Background()); err == nil {
		os.WriteFile(pem, text, 0o644)
	}
	own, _ := os.Executable() // without it, there is nothing beside it
	client, note := tunnelctl(own)
	fmt.Fprintf(out, `
%s is forwarded, on high ports, since this is a demo:

  in a browser    %s  (resolves by itself; its CA is not trusted, so it will warn)
  by its name     %s

  dig @%s -p %d %s
  curl --cacert %s --resolve %s:%s:%s %s/health
  curl http://%s:%d/        (the Service's port itself; each new connection may meet another pod)

  %s --socket %s status%s
  kubectl --kubeconfig %s get pods

%s
To stop: Ctrl-C.
`, f.Name, localhostURL(f), f.URL,
		s.dns.Addr(), s.dns.Port(), f.Hostnames[0],
		pem, f.Hostnames[0], port, f.Address, f.URL,
		f.Address, f.Ports[0].Port,
		client, s.daemon.Socket, note, filepath.Join(s.dir, "kubeconfig"),
		status.DevOnly)
}

// tunnelctl is what to type for the tunnelctl that is beside the program at own,
// else for the one in $PATH; note says what to do if there is neither.
func tunnelctl(own string) (command, note string) {
	const name = "tunnelctl"
	inPath, err := exec.LookPath(name)
	beside, besideErr := exec.LookPath(filepath.Join(filepath.Dir(own), name))
	switch {
	case besideErr == nil && !sameFile(beside, inPath):
		return beside, ""
	case err == nil:
		return name, ""
	}
	return name, "  (once it is built: make build, or go build ./cmd/tunnelctl)"
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	two, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(one, two)
}

// localhostURL is the URL that needs nobody's help to resolve.
func localhostURL(f status.Forward) string {
	for _, u := range f.URLs {
		if strings.Contains(u, ".localhost") {
			return u
		}
	}
	return f.URL
}
