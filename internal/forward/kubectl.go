package forward

import (
	"fmt"
	"path/filepath"
)

// Kubectl is a kubectl command, for hints. The kubeconfig is as in Workload.
func Kubectl(kubeconfig, args string) string {
	switch {
	case kubeconfig == "":
		return "kubectl " + args
	case len(filepath.SplitList(kubeconfig)) > 1: // --kubeconfig takes one file
		return "KUBECONFIG=" + kubeconfig + " kubectl " + args
	}
	return "kubectl --kubeconfig " + kubeconfig + " " + args
}

// Kubectl is a kubectl command for the workload's namespace, for hints.
func (w Workload) Kubectl(args string) string {
	return Kubectl(w.Kubeconfig, fmt.Sprintf("--context %s -n %s %s", w.Context, w.Namespace, args))
}
