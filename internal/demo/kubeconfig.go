package demo

import (
	"cmp"
	"fmt"
	"log/slog"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
)

// A Kubeconfig says what a kubeconfig file shall contain. The zero value is a
// context "demo" with the cluster's latest token.
type Kubeconfig struct {
	Context   string // "" means "demo"; also the name of the cluster entry
	Namespace string // the context's; "" leaves it out
	User      string // name of the user entry; "" means DefaultUser
	Token     string // "" means Token()
	// Exec is a credential plugin to have instead of a token.
	Exec *clientcmdapi.ExecConfig
	// Server is the API server's URL; "" means URL().
	Server string
}

// Kubeconfig returns a configuration with one context, the current one.
func (c *Cluster) Kubeconfig(k Kubeconfig) *clientcmdapi.Config {
	name, user := cmp.Or(k.Context, "demo"), cmp.Or(k.User, DefaultUser)
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{
		Server:                   cmp.Or(k.Server, c.URL()),
		CertificateAuthorityData: c.api.CA(),
	}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user, Namespace: k.Namespace}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{Exec: k.Exec}
	if k.Exec == nil {
		config.AuthInfos[user].Token = cmp.Or(k.Token, c.Token())
	}
	config.CurrentContext = name
	return config
}

// WriteKubeconfig writes a kubeconfig file, mode 0600, over what is there.
func (c *Cluster) WriteKubeconfig(path string, k Kubeconfig) error {
	if err := clientcmd.WriteToFile(*c.Kubeconfig(k), path); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

// RESTConfig is what client-go needs to reach the cluster with its latest
// token.
func (c *Cluster) RESTConfig() *rest.Config {
	return &rest.Config{
		Host:            c.URL(),
		BearerToken:     c.Token(),
		TLSClientConfig: rest.TLSClientConfig{CAData: c.api.CA()},
		QPS:             -1, // no client-side limit
	}
}

// RedirectKlog gives klog a logger; nil silences it. Through klog the
// Kubernetes libraries, the server's and client-go's, report to standard error
// what tests provoke on purpose. It changes a global of klog that must not be
// changed later: call it first in main or TestMain, and nowhere else.
func RedirectKlog(log *slog.Logger) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	klog.SetSlogLogger(log)
}
