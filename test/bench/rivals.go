package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
)

// addresses are where a rival serves the sample application.
type addresses struct {
	echo, source, http string
}

// A rival forwards the sample application.
type rival interface {
	fmt.Stringer
	// ready starts what does not run, any more or yet, and says where it is.
	ready(ctx context.Context) (addresses, error)
	close() error
}

// A process is a program that may end by itself.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// watch waits for a started program, and reads what it has to say, on which it
// must not block.
func watch(cmd *exec.Cmd, said io.Reader) *process {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		io.Copy(io.Discard, said)
		cmd.Wait() // how it ended does not matter
		close(p.ended)
	}()
	return p
}

func (p *process) alive() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// stop ends it, and waits.
func (p *process) stop() {
	if !p.alive() {
		return
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// kubectl is one "kubectl port-forward" for each Service, as people run it.
type kubectl struct {
	tcp, http *process
	at        addresses
}

func (k *kubectl) String() string { return "kubectl" }

func (k *kubectl) ready(ctx context.Context) (addresses, error) {
	if !k.tcp.alive() {
		p, local, err := portForward(ctx, "service/task-tcp", 9000, 9001)
		if err != nil {
			return addresses{}, err
		}
		k.tcp, k.at.echo, k.at.source = p, local[0], local[1]
	}
	if !k.http.alive() {
		p, local, err := portForward(ctx, "service/task-api", 8000)
		if err != nil {
			return addresses{}, err
		}
		k.http, k.at.http = p, local[0]
	}
	return k.at, nil
}

func (k *kubectl) close() error {
	k.tcp.stop()
	k.http.stop()
	return nil
}

// portForward starts kubectl on free local ports, which it returns in the
// order of the Service's.
func portForward(ctx context.Context, target string, ports ...int) (*process, []string, error) {
	args := []string{"-n", "task-api", "port-forward", "--address", "127.0.0.1", target}
	for _, p := range ports {
		args = append(args, fmt.Sprintf(":%d", p))
	}
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	said, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	lines := bufio.NewReader(said)
	var local []string
	for range ports { // Forwarding from 127.0.0.1:41231 -> 9000
		line, err := lines.ReadString('\n')
		fields := strings.Fields(line)
		if err != nil || len(fields) < 3 {
			cmd.Process.Kill()
			return nil, nil, errors.Join(fmt.Errorf("kubectl port-forward says %q: %w", line, err), cmd.Wait())
		}
		local = append(local, fields[2])
	}
	return watch(cmd, lines), local, nil
}

// tunneld is one daemon, with a forward for each Service.
type tunneld struct {
	bin, dir string
	daemon   *process
	at       addresses
}

func (d *tunneld) String() string { return "tunneld" }

func (d *tunneld) ready(ctx context.Context) (addresses, error) {
	if d.daemon.alive() {
		return d.at, nil
	}
	if d.daemon != nil {
		return addresses{}, errors.New("it has ended")
	}
	file := filepath.Join(d.dir, "config.yaml")
	text := "version: 1\naddresses: 127.79.0.0/24\ndns: {listen: \"127.0.0.1:0\"}\ngateway: {http: 0, https: 0}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return addresses{}, err
	}
	client := &localapi.Client{Socket: filepath.Join(d.dir, "sock")}
	cmd := exec.Command(filepath.Join(d.bin, "tunneld"), "run",
		"--config", file, "--state-dir", filepath.Join(d.dir, "state"), "--socket", client.Socket)
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		return addresses{}, err
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return addresses{}, err
	}
	d.daemon = watch(cmd, strings.NewReader(""))
	for {
		if _, err = client.Version(ctx); err == nil {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-d.daemon.ended:
			said, _ := os.ReadFile(log.Name())
			return addresses{}, fmt.Errorf("it did not start:\n%s", said)
		case <-ctx.Done():
			return addresses{}, ctx.Err()
		}
	}
	tcp, err := d.add(ctx, client, "task-tcp")
	if err != nil {
		return addresses{}, err
	}
	web, err := d.add(ctx, client, "task-api")
	if err != nil {
		return addresses{}, err
	}
	for _, p := range tcp.Ports {
		switch p.Port {
		case 9000:
			d.at.echo = p.Listen
		case 9001:
			d.at.source = p.Listen
		}
	}
	// The gateway, which picks a pod for each request.
	for _, text := range web.URLs {
		if u, err := url.Parse(text); err == nil && u.Scheme == "http" && u.Hostname() == web.Hostnames[0] {
			d.at.http = net.JoinHostPort(web.Address, u.Port())
		}
	}
	return d.at, nil
}

func (d *tunneld) add(ctx context.Context, client *localapi.Client, service string) (status.Forward, error) {
	req := localapi.AddRequest{Target: service, Namespace: "task-api", Kubeconfig: os.Getenv("KUBECONFIG")}
	if _, err := client.Add(ctx, req); err != nil {
		return status.Forward{}, err
	}
	f, err := client.Wait(ctx, service, time.Minute)
	if err == nil && f.State != status.Ready {
		err = fmt.Errorf("%s is %s: %s", f.Name, f.State, f.Cause)
	}
	return f, err
}

func (d *tunneld) close() error {
	d.daemon.stop()
	return nil
}
