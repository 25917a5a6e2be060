package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// namespace is the sample application's.
const namespace = "task-api"

// A setting is what a rival is started with.
type setting struct {
	kubeconfig, context string
	// limited is another kubeconfig, for tunneld, of a user who may not use
	// WebSockets; it may be empty.
	limited string
	unused  int    // forwards, instead of the two that are used
	server  uint16 // the API server's port
}

// cluster is that of $KUBECONFIG, and the ways to it.
type cluster struct {
	dir     string
	config  *api.Config // its current context alone, without references to files
	delay   *delay
	limited bool // limitedUser may exist
}

func newCluster(dir string) (*cluster, error) {
	config, err := clientcmd.NewDefaultClientConfigLoadingRules().Load()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(api.MinifyConfig(config), api.FlattenConfig(config)); err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return &cluster{dir: dir, config: config}, nil
}

func (c *cluster) setting(ctx context.Context, in scene) (setting, error) {
	server, err := c.server()
	if err != nil {
		return setting{}, err
	}
	_, port, err := net.SplitHostPort(server)
	if err != nil {
		return setting{}, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return setting{}, err
	}
	set := setting{context: c.config.CurrentContext, server: uint16(number)}
	if set.kubeconfig, err = c.write("kubeconfig", nil); err != nil {
		return setting{}, err
	}
	switch in {
	case crowded:
		set.unused = 500
	case far:
		if c.delay == nil {
			if c.delay, err = newDelay(server, 20*time.Millisecond); err != nil {
				return setting{}, err
			}
		}
		set.kubeconfig, err = c.write("far", func(cluster *api.Cluster, _ *api.AuthInfo) {
			if cluster.TLSServerName == "" {
				cluster.TLSServerName, _, _ = net.SplitHostPort(server)
			}
			cluster.Server = strings.Replace(cluster.Server, hostOf(cluster.Server), c.delay.addr(), 1)
		})
	case plainSPDY:
		if !c.limited {
			c.limited = true // or in part, if that fails
			if err := kubectlStdin(ctx, limitedUser, "apply", "-f", "-"); err != nil {
				return setting{}, err
			}
		}
		set.limited, err = c.write("limited", func(_ *api.Cluster, user *api.AuthInfo) { user.Impersonate = "tunneld-bench" })
	}
	return set, err
}

// write makes a kubeconfig.
func (c *cluster) write(name string, change func(*api.Cluster, *api.AuthInfo)) (string, error) {
	config := c.config.DeepCopy()
	if change != nil {
		current := config.Contexts[config.CurrentContext]
		change(config.Clusters[current.Cluster], config.AuthInfos[current.AuthInfo])
	}
	file := filepath.Join(c.dir, name)
	return file, clientcmd.WriteToFile(*config, file)
}

// server is the API server's HOST:PORT.
func (c *cluster) server() (string, error) {
	host := hostOf(c.config.Clusters[c.config.Contexts[c.config.CurrentContext].Cluster].Server)
	if host == "" {
		return "", errors.New("the kubeconfig names no API server")
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), "443")
	}
	return host, nil
}

func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}

func (c *cluster) close() error {
	var err error
	if c.delay != nil {
		err = c.delay.Close()
	}
	if c.limited {
		// The run may have been interrupted; this is not.
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		err = errors.Join(err, kubectlStdin(ctx, limitedUser, "delete", "--ignore-not-found", "-f", "-"))
	}
	return err
}

func kubectlStdin(ctx context.Context, in string, args ...string) error {
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Stdin = strings.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// limitedUser may do what tunneld needs, but a port-forward only as SPDY
// does it, by POST ("create"): WebSockets take GET ("get"). So tunneld falls
// back, as it does for such users anyway.
const limitedUser = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tunneld-bench, namespace: ` + namespace + `}
rules:
- {apiGroups: [""], resources: [pods, services], verbs: [get, list, watch]}
- {apiGroups: [apps], resources: [deployments, statefulsets], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [pods/portforward], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tunneld-bench, namespace: ` + namespace + `}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tunneld-bench}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: tunneld-bench}]
`
