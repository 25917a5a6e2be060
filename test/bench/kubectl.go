package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// kubectl is one "kubectl port-forward" for each Service, as people run it.
type kubectl struct{}

func (*kubectl) String() string { return "kubectl" }

// takesPart: 500 of its processes would not fit.
func (*kubectl) takesPart(in scene) bool { return in != crowded }

func (k *kubectl) start(ctx context.Context, in setting) (*running, error) {
	r := &running{}
	tcp, err := k.forward(ctx, r, in.kubeconfig, "service/task-tcp", 9000, 9001)
	if err != nil {
		return nil, err
	}
	web, err := k.forward(ctx, r, in.kubeconfig, "service/task-api", 8000)
	if err != nil {
		r.close()
		return nil, err
	}
	r.echo, r.source = tcp[0], tcp[1]
	r.http, r.raw, r.host = web[0], web[0], web[0]
	return r, nil
}

// forward starts kubectl on free local ports, which it returns in the order of
// the Service's.
func (*kubectl) forward(ctx context.Context, r *running, kubeconfig, target string, ports ...int) ([]string, error) {
	args := []string{"--kubeconfig", kubeconfig, "-n", namespace, "port-forward", "--address", "127.0.0.1", target}
	for _, p := range ports {
		args = append(args, fmt.Sprintf(":%d", p))
	}
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	says, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(says)
	var local []string
	for range ports { // Forwarding from 127.0.0.1:41231 -> 9000
		line, err := lines.ReadString('\n')
		fields := strings.Fields(line)
		if err != nil || len(fields) < 3 {
			cmd.Process.Kill()
			err = errors.Join(err, cmd.Wait())
			return nil, fmt.Errorf("kubectl port-forward says %q: %w", line+complaint.String(), err)
		}
		local = append(local, fields[2])
	}
	// What else it has to say must not block it; its end closes the pipe.
	go io.Copy(io.Discard, lines)
	r.add(watch(cmd))
	return local, nil
}
