package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/daemon"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
	"github.com/tunneld/tunneld/internal/version"
)

const (
	demoContext   = "demo"
	demoNamespace = "task-api"
	demoService   = "task-api"
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
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
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
	if s.dir, err = os.MkdirTemp("", "tunneld-demo-"); err != nil {
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
		Socket:     filepath.Join(s.dir, "tunneld.sock"),
		Version:    version.Get(),
		Log:        logger,
	}
	s.client = &localapi.Client{Socket: s.daemon.Socket}

	// The daemon outlives the interrupt for as long as it takes to say so.
	running, cancel := context.WithCancel(context.Background())
	started, ended := make(chan struct{}), make(chan error, 1)
	s.daemon.Started = func() { close(started) }
	err = s.steps.do("start a daemon of its own", func() (string, error) {
		if err := s.prepare(); err != nil {
			return "", err
		}
		go func() { ended <- s.daemon.Run(running) }()
		select {
		case <-started:
			return s.dir, nil
		case err := <-ended:
			ended <- err
			return "", err
		}
	})
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
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
	case err := <-ended:
		ended <- nil
		return err
	}
}

// prepare writes the kubeconfig and the daemon's configuration.
func (s *stage) prepare() error {
	kubeconfig := filepath.Join(s.dir, "kubeconfig")
	if err := s.cluster.WriteKubeconfig(kubeconfig, demo.Kubeconfig{Context: demoContext, Namespace: demoNamespace}); err != nil {
		return err
	}
	http, https := freePorts()
	text := fmt.Sprintf(`# The demo's own configuration: another address range and other ports than the
# defaults, so that it runs beside an installed daemon.
version: 1
addresses: 127.78.%d.0/24
dns: {listen: "127.0.0.1:25353"}
gateway: {http: %d, https: %d}
`, 1+os.Getpid()%250, http, https) // another demo may be running
	return os.WriteFile(s.daemon.ConfigPath, []byte(text), 0o600)
}

// freePorts finds a pair of high ports for the gateway that nothing listens on,
// at any address; 0 is any.
func freePorts() (http, https uint16) {
	for _, base := range []uint16{8000, 18000, 28000} {
		if free(base+80) && free(base+443) {
			return base + 80, base + 443
		}
	}
	return 0, 0
}

// free reports whether a port is free at every loopback address.
func free(port uint16) bool {
	// On some systems a listener on all addresses does not keep one address
	// from being bound, nor the other way round: it would just get the wrong
	// half of the connections.
	if c, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(int(port)), time.Second); err == nil {
		c.Close()
		return false
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(int(port)))
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
	fmt.Fprintf(out, `
%s is forwarded, on high ports, since this is a demo:

  in a browser    %s  (resolves by itself; its CA is not trusted, so it will warn)
  by its name     %s

  dig @%s -p %d %s
  curl --cacert %s --resolve %s:%s:%s %s/health
  curl http://%s:%d/        (the Service's port itself; each new connection may meet another pod)

  tunnelctl --socket %s status
  kubectl --kubeconfig %s get pods

%s
To stop: Ctrl-C.
`, f.Name, localhostURL(f), f.URL,
		s.dns.Addr(), s.dns.Port(), f.Hostnames[0],
		pem, f.Hostnames[0], port, f.Address, f.URL,
		f.Address, f.Ports[0].Port,
		s.daemon.Socket, filepath.Join(s.dir, "kubeconfig"),
		"dev only: your machine, your credentials, no rate limit, gone when this laptop sleeps")
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
