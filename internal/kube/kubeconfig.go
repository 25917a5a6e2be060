package kube

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/nearest"
	"github.com/tunneld/tunneld/internal/status"
)

// An ID identifies a cluster: two kubeconfig files may use one context name
// for different clusters.
type ID struct {
	// Kubeconfig is as in forward.Workload.
	Kubeconfig string
	Context    string
}

// files are where it stands.
func (id ID) files() string { return cmp.Or(id.Kubeconfig, DefaultKubeconfig()) }

// kubectl is a command for these files and this context.
func (id ID) kubectl(args string) string {
	return forward.Kubectl(id.Kubeconfig, "--context "+id.Context+" "+args)
}

// DefaultKubeconfig returns the files that an empty Kubeconfig stands for,
// joined by the OS's list separator: $KUBECONFIG of this process, else
// ~/.kube/config.
func DefaultKubeconfig() string {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	return strings.Join(rules.GetLoadingPrecedence(), string(filepath.ListSeparator))
}

// loadKubeconfig merges the files as kubectl does.
func loadKubeconfig(kubeconfig string) (*api.Config, error) {
	list := cmp.Or(kubeconfig, DefaultKubeconfig())
	files := filepath.SplitList(list)
	var missing []string
	for _, file := range files {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, file)
		}
	}
	if len(missing) == len(files) {
		return nil, configError(status.Failed,
			fmt.Sprintf("there is no kubeconfig at %s", strings.Join(missing, " or ")),
			"put one there, or say where it is: KUBECONFIG=FILE tunnelctl add ...", fs.ErrNotExist)
	}
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: files}
	raw, err := rules.Load()
	if err != nil {
		return nil, configError(status.Failed,
			fmt.Sprintf("the kubeconfig %s cannot be read: %v", list, err),
			forward.Kubectl(kubeconfig, "config view"), err)
	}
	if len(raw.Contexts) == 0 {
		return nil, configError(status.Failed,
			fmt.Sprintf("the kubeconfig %s has no context in it", list),
			forward.Kubectl(kubeconfig, "config view")+", or say where another one is: KUBECONFIG=FILE tunnelctl add ...", nil)
	}
	return raw, nil
}

// An access is what the kubeconfig says about one context.
type access struct {
	rest *rest.Config
	// namespace is the context's, or else default.
	namespace string
	// said is the entries as they stand in the file, and what counts beside them, to
	// tell whether they have changed: a rest.Config cannot be compared, since it may
	// hold functions.
	said entries
}

// entries are what a connection follows from, without what other programs note
// down beside it. The context's namespace is not among it: a workload has its
// own.
type entries struct {
	cluster *api.Cluster
	user    *api.AuthInfo
	// environment is what of it counts besides them: see followEnvironment.
	environment string
}

func entriesOf(raw *api.Config, context *api.Context) entries {
	e := entries{cluster: raw.Clusters[context.Cluster].DeepCopy(), user: raw.AuthInfos[context.AuthInfo].DeepCopy()}
	if e.cluster != nil {
		e.cluster.LocationOfOrigin, e.cluster.Extensions = "", nil
	}
	if e.user != nil {
		e.user.LocationOfOrigin, e.user.Extensions = "", nil
	}
	return e
}

// readAccess reads what the kubeconfig says about a context. Its error is a
// *forward.Error.
func readAccess(id ID) (access, error) {
	raw, err := loadKubeconfig(id.Kubeconfig)
	if err != nil {
		return access{}, err
	}
	context := raw.Contexts[id.Context]
	if context == nil {
		return access{}, noSuchContext(raw, id)
	}
	if err := lacksEntry(raw, id, context); err != nil {
		return access{}, err
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: id.Context}
	config, err := clientcmd.NewNonInteractiveClientConfig(*raw, id.Context, overrides, nil).ClientConfig()
	if err != nil {
		return access{}, unusable(id, err)
	}
	said := entriesOf(raw, context)
	said.environment = followEnvironment(config)
	return access{rest: config, namespace: cmp.Or(context.Namespace, "default"), said: said}, nil
}

func noSuchContext(raw *api.Config, id ID) error {
	names := make([]string, 0, len(raw.Contexts))
	for name := range raw.Contexts {
		names = append(names, name)
	}
	slices.Sort(names)
	hint := forward.Kubectl(id.Kubeconfig, "config get-contexts")
	switch near := nearest.To(id.Context, names, 3); {
	case len(near) > 0:
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	case len(names) > 0 && len(names) <= 5:
		hint = "there is " + strings.Join(names, ", ")
	}
	return configError(status.NotFound,
		fmt.Sprintf("there is no context %q in %s", id.Context, id.files()), hint, nil)
}

// lacksEntry returns the error for a context that refers to what is not there,
// which client-go tells as if there were no kubeconfig. No user is none that is
// missing.
func lacksEntry(raw *api.Config, id ID, context *api.Context) error {
	var cause, list string
	switch {
	case context.Cluster == "":
		cause, list = fmt.Sprintf("context %s in %s names no cluster", id.Context, id.files()), "get-clusters"
	case raw.Clusters[context.Cluster] == nil:
		cause, list = fmt.Sprintf("context %s refers to the cluster %q, which is not in %s", id.Context, context.Cluster, id.files()), "get-clusters"
	case context.AuthInfo != "" && raw.AuthInfos[context.AuthInfo] == nil:
		cause, list = fmt.Sprintf("context %s refers to the user %q, which is not in %s", id.Context, context.AuthInfo, id.files()), "get-users"
	default:
		return nil
	}
	hint := fmt.Sprintf("see what there is (%s), and mend the context (%s)",
		forward.Kubectl(id.Kubeconfig, "config "+list), forward.Kubectl(id.Kubeconfig, "config get-contexts "+id.Context))
	return configError(status.Failed, cause, hint, nil)
}

// unusable is the error for a context with which nothing can be asked.
func unusable(id ID, err error) *forward.Error {
	return configError(status.Failed, fmt.Sprintf("context %s cannot be used: %v", id.Context, err),
		id.kubectl("config view --minify"), err)
}

func configError(state status.State, cause, hint string, err error) *forward.Error {
	return &forward.Error{
		Kind:      forward.ErrUnavailable,
		Condition: status.Condition{State: state, Cause: cause, Hint: hint},
		Err:       err,
	}
}
