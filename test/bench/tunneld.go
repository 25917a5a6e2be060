package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/status"
)

// tunneld is one daemon, with a forward for each Service.
type tunneld struct {
	bin, dir string
	started  int
}

func (*tunneld) String() string { return "tunneld" }

func (*tunneld) takesPart(scene) bool { return true }

func (d *tunneld) start(ctx context.Context, in setting) (*running, error) {
	// Each daemon has a range of addresses of its own: several run at a time.
	d.started++
	dir := filepath.Join(d.dir, fmt.Sprintf("tunneld-%d", d.started))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(configuration(100+d.started%100, in)), 0o600); err != nil {
		return nil, err
	}
	client := &localapi.Client{Socket: filepath.Join(dir, "sock")}
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "tunneld"), "run", "--helper", "none",
		"--config", file, "--state-dir", filepath.Join(dir, "state"), "--socket", client.Socket)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &running{server: in.server, cleanup: func() { os.RemoveAll(dir) }}
	r.add(watch(cmd))
	if err := d.find(ctx, client, in, r); err != nil {
		r.processes[0].stop()
		said, _ := os.ReadFile(log.Name())
		r.close()
		if len(said) > 2000 {
			said = said[len(said)-2000:]
		}
		return nil, fmt.Errorf("%w; it says:\n%s", err, said)
	}
	return r, nil
}

func configuration(network int, in setting) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\naddresses: 127.%d.0.0/16\ndns: {listen: \"127.0.0.1:0\"}\ngateway: {http: 0, https: 0}\nforwards:\n", network)
	forward := func(name, target string) {
		fmt.Fprintf(&b, "- name: %s\n  target: service/%s\n  namespace: %s\n  context: %q\n  kubeconfig: %q\n",
			name, target, namespace, in.context, cmp.Or(in.limited, in.kubeconfig))
	}
	if in.unused == 0 {
		forward("task-tcp", "task-tcp")
		forward("task-api", "task-api")
	}
	for i := range in.unused {
		forward(fmt.Sprintf("unused-%d", i), []string{"task-api", "task-tcp"}[i%2])
	}
	return b.String()
}

// find waits for the daemon and its forwards, and notes where they are.
func (d *tunneld) find(ctx context.Context, client *localapi.Client, in setting, r *running) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		s, err := client.Status(ctx)
		if err == nil && usable(s.Forwards) >= max(in.unused, 2) {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-r.processes[0].ended:
			return errors.New("it did not start")
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("%d of %d forwards can be used", usable(s.Forwards), len(s.Forwards))
			}
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
	if in.unused > 0 {
		return nil
	}
	tcp, err := d.wait(ctx, client, "task-tcp")
	if err != nil {
		return err
	}
	web, err := d.wait(ctx, client, "task-api")
	if err != nil {
		return err
	}
	for _, p := range tcp.Ports {
		switch p.Port {
		case 9000:
			r.echo = p.Listen
		case 9001:
			r.source = p.Listen
		}
	}
	for _, p := range web.Ports {
		if p.Port == 8000 && p.ServedBy == "forward" {
			r.raw = p.Listen
		}
	}
	r.host = web.Hostnames[0]
	for _, text := range web.URLs {
		u, err := url.Parse(text)
		if err != nil || u.Hostname() != r.host {
			continue
		}
		switch addr := net.JoinHostPort(web.Address, u.Port()); u.Scheme {
		case "http":
			r.http = addr
		case "https":
			r.https = addr
		}
	}
	pem, err := client.RootPEM(ctx)
	if err != nil {
		return err
	}
	r.roots = x509.NewCertPool()
	r.roots.AppendCertsFromPEM(pem)
	return nil
}

func usable(forwards []status.Forward) int {
	n := 0
	for _, f := range forwards {
		if f.State.Usable() {
			n++
		}
	}
	return n
}

func (*tunneld) wait(ctx context.Context, client *localapi.Client, name string) (status.Forward, error) {
	f, err := client.Wait(ctx, name, time.Minute)
	if err == nil && f.State != status.Ready {
		err = fmt.Errorf("%s is %s: %s", f.Name, f.State, f.Cause)
	}
	return f, err
}
