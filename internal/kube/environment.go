package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd/api"
)

// The environment of this process may change while it runs: its user has another one,
// and says so. Reload then finds what follows from it.

// proxyFromEnvironment is http.ProxyFromEnvironment, which remembers for ever what it
// has found first.
func proxyFromEnvironment(req *http.Request) (*url.URL, error) {
	return httpproxy.FromEnvironment().ProxyFunc()(req.URL)
}

// followEnvironment has a configuration follow the environment of this process, and
// returns what of it connections follow from, in a form that can be compared and tells
// nothing.
func followEnvironment(config *rest.Config) string {
	if plugin := config.ExecProvider; plugin != nil {
		if config.Proxy == nil {
			config.Proxy = proxyFromEnvironment
		}
		// client-go keeps what a plugin has said for all who ask with an equal
		// configuration. In another environment it may say something else, so it is
		// given what tells one from the other.
		all := os.Environ()
		slices.Sort(all)
		mark := digest(strings.Join(all, "\x00"))
		config.ExecProvider = plugin.DeepCopy()
		config.ExecProvider.Env = append(config.ExecProvider.Env, api.ExecEnvVar{Name: "TUNNELD_ENVIRONMENT", Value: mark})
		return mark
	}
	if config.Proxy != nil { // the kubeconfig's
		return ""
	}
	config.Proxy = proxyFromEnvironment
	to, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return ""
	}
	proxy, err := proxyFromEnvironment(&http.Request{URL: to})
	if err != nil || proxy == nil {
		return ""
	}
	return digest(proxy.String())
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}
