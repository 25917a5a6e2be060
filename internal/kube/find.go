package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/nearest"
	"github.com/tunneld/tunneld/internal/status"
)

// A Query is what somebody typed to name a workload.
type Query struct {
	// Kubeconfig is as in forward.Workload. Context empty means the current
	// one. Namespace empty means the context's; or, if there is no such object
	// in it, the only one that has it.
	Kubeconfig, Context, Namespace string
	Kind                           forward.Kind
	Name                           string
	// Ports are names or numbers; they must exist.
	Ports []string
	// Known is what was found for such a query before, if anything. It says the
	// namespace where that is not given and the cluster cannot be asked.
	Known forward.Workload
}

// A Found is a workload that a Query means.
type Found struct {
	Workload forward.Workload
	// Note says what was assumed, or what could not be verified.
	Note string
	// Ports are the TCP ports that it is known to have.
	Ports []Port
}

// Find resolves a query against its cluster. An error is a *forward.Error with
// a hint. If the cluster cannot be asked now, the workload is returned
// unverified, with a note that says so, but never with a namespace that nobody
// has said.
func (cs *Clusters) Find(ctx context.Context, q Query) (Found, error) {
	if q.Context == "" {
		raw, err := loadKubeconfig(q.Kubeconfig)
		if err != nil {
			return Found{}, err
		}
		if raw.CurrentContext == "" {
			return Found{}, configError(status.NotFound, "the kubeconfig has no current context",
				"say which: --context NAME ("+forward.Kubectl(q.Kubeconfig, "config get-contexts")+")", nil)
		}
		q.Context = raw.CurrentContext
	}
	id := ID{q.Kubeconfig, q.Context}
	to, err := readAccess(id)
	if err != nil {
		return Found{}, err
	}
	l := newLink(id, to, func() {})
	k, err := newClient(to.rest, cs.UserAgent, cs.Timing.withDefaults(), l)
	if err != nil {
		return Found{}, unusable(id, err)
	}
	defer k.close()

	f := finder{client: k, query: q, home: to.namespace}
	began := time.Now()
	found, err := f.find(ctx)
	var stop *forward.Error
	if err == nil || errors.As(err, &stop) {
		return found, err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		l.dead(began)
	}
	return unverified(q, l, err)
}

// unverified is what a query means if there is no answer about the object: the
// API server could not, or would not, say.
func unverified(q Query, l *link, err error) (Found, error) {
	why := l.condition()
	switch {
	case apierrors.IsForbidden(err):
		why = status.Condition{State: status.Forbidden, Cause: err.Error()}
	case l.up(): // it answers, but not this
		why = status.Condition{State: status.Offline, Cause: err.Error()}
	}
	w := forward.Workload{Kubeconfig: q.Kubeconfig, Context: q.Context, Namespace: q.Namespace, Kind: q.Kind, Name: q.Name}
	if w.Namespace == "" {
		w.Namespace = q.Known.Namespace
		if w != q.Known {
			return Found{}, unknownNamespace(w, l, why, err)
		}
	}
	return Found{Workload: w, Note: "not verified: " + why.Cause}, nil
}

// unknownNamespace is the error where nobody says the namespace: a guess would
// stay in the configuration.
func unknownNamespace(w forward.Workload, l *link, why status.Condition, err error) error {
	hint := "say which it is: -n NAMESPACE"
	switch why.State {
	case status.NeedsLogin:
		hint = l.login() + ", then try again; or " + hint
	case status.Forbidden:
	default:
		hint += ", or try again when the API server answers"
	}
	return configError(why.State, fmt.Sprintf("the namespace of %s cannot be found out: %s", w.Ref(), why.Cause), hint, err)
}

// A finder answers one query.
type finder struct {
	client *client
	query  Query
	home   string // the context's namespace
}

// kubectl is a command that shows more.
func (f finder) kubectl(args string) string {
	return ID{f.query.Kubeconfig, f.query.Context}.kubectl(args)
}

func (f finder) find(ctx context.Context) (Found, error) {
	q := f.query
	namespace := q.Namespace
	if namespace == "" {
		namespace = f.home
	}
	v, err := f.view(ctx, namespace)
	var note string
	if isNotFound(err) {
		if q.Namespace != "" {
			return Found{}, f.notFound(ctx, namespace)
		}
		namespace, note, err = f.elsewhere(ctx)
		if err != nil {
			return Found{}, err
		}
		v, err = f.view(ctx, namespace)
	}
	if err != nil {
		return Found{}, err
	}
	w := forward.Workload{Kubeconfig: q.Kubeconfig, Context: q.Context, Namespace: namespace, Kind: q.Kind, Name: q.Name}
	if err := checkProtocols(w, v, q.Ports); err != nil {
		return Found{}, err
	}
	if v.obstacle != "" {
		return Found{}, configError(status.NotFound, v.obstacle, instead(w), nil)
	}
	if err := checkPorts(w, v, q.Ports); err != nil {
		return Found{}, err
	}
	return Found{Workload: w, Note: note, Ports: v.ports}, nil
}

// view reads the object and makes of it what a watch would.
func (f finder) view(ctx context.Context, namespace string) (view, error) {
	get := func(c rest.Interface, resource string, into runtime.Object) error {
		return c.Get().Namespace(namespace).Resource(resource).Name(f.query.Name).Do(ctx).Into(into)
	}
	switch f.query.Kind {
	case forward.Deployment:
		var d appsv1.Deployment
		if err := get(f.client.apps, "deployments", &d); err != nil {
			return view{}, err
		}
		return viewTemplate(d.Spec.Selector, d.Spec.Template.Spec, nil), nil
	case forward.StatefulSet:
		var s appsv1.StatefulSet
		if err := get(f.client.apps, "statefulsets", &s); err != nil {
			return view{}, err
		}
		return viewTemplate(s.Spec.Selector, s.Spec.Template.Spec, nil), nil
	case forward.Pod:
		var pod corev1.Pod
		if err := get(f.client.core, "pods", &pod); err != nil {
			return view{}, err
		}
		return viewPod(&pod), nil
	default:
		var svc corev1.Service
		if err := get(f.client.core, "services", &svc); err != nil {
			return view{}, err
		}
		return viewService(&svc, []*discoveryv1.EndpointSlice{}, nil), nil
	}
}

// resource is where objects of the kind are listed.
func (f finder) resource() (rest.Interface, string) {
	switch f.query.Kind {
	case forward.Deployment:
		return f.client.apps, "deployments"
	case forward.StatefulSet:
		return f.client.apps, "statefulsets"
	case forward.Pod:
		return f.client.core, "pods"
	}
	return f.client.core, "services"
}

// An objectName is where an object is.
type objectName struct{ namespace, name string }

// objects lists what there is of the kind. An empty namespace means all.
func (f finder) objects(ctx context.Context, namespace string) ([]objectName, error) {
	c, resource := f.resource()
	list, err := c.Get().NamespaceIfScoped(namespace, namespace != "").Resource(resource).Do(ctx).Get()
	if err != nil {
		return nil, err
	}
	var all []objectName
	err = meta.EachListItem(list, func(item runtime.Object) error {
		o, err := meta.Accessor(item)
		if err == nil {
			all = append(all, objectName{o.GetNamespace(), o.GetName()})
		}
		return err
	})
	return all, err
}

// elsewhere finds the only other namespace that has the object.
func (f finder) elsewhere(ctx context.Context) (namespace, note string, err error) {
	q := f.query
	all, err := f.objects(ctx, "")
	if apierrors.IsForbidden(err) {
		// Whoever may not look everywhere has to say where.
		cause := fmt.Sprintf("there is no %s/%s in namespace %s of context %s, and other namespaces may not be searched", q.Kind, q.Name, f.home, q.Context)
		return "", "", configError(status.NotFound, cause, "say where it is: -n NAMESPACE", err)
	}
	if err != nil {
		return "", "", err
	}
	var in []string
	for _, o := range all {
		if o.name == q.Name {
			in = append(in, o.namespace)
		}
	}
	slices.Sort(in)
	switch len(in) {
	case 0:
		cause := fmt.Sprintf("there is no %s/%s in any namespace of context %s", q.Kind, q.Name, q.Context)
		return "", "", configError(status.NotFound, cause, f.similar(all, f.home), nil)
	case 1:
		return in[0], fmt.Sprintf("namespace %s: the only one with such a %s", in[0], q.Kind), nil
	}
	cause := fmt.Sprintf("there is a %s/%s in %d namespaces of context %s: %s", q.Kind, q.Name, len(in), q.Context, strings.Join(in, ", "))
	return "", "", configError(status.NotFound, cause, "say which: -n "+in[0], nil)
}

// notFound is the error for an object that is not in the namespace that was
// asked for.
func (f finder) notFound(ctx context.Context, namespace string) error {
	q := f.query
	if err := f.noNamespace(ctx, namespace); err != nil {
		return err
	}
	cause := fmt.Sprintf("there is no %s/%s in namespace %s of context %s", q.Kind, q.Name, namespace, q.Context)
	all, err := f.objects(ctx, "")
	if err != nil {
		all, _ = f.objects(ctx, namespace) // without an answer there is less of a hint
	}
	if i := slices.IndexFunc(all, func(o objectName) bool { return o.name == q.Name }); i >= 0 {
		return configError(status.NotFound, cause, fmt.Sprintf("it is in namespace %s: -n %s", all[i].namespace, all[i].namespace), nil)
	}
	return configError(status.NotFound, cause, f.similar(all, namespace), nil)
}

// similar is a hint at objects whose names are like the one asked for; home is
// the namespace that need not be named.
func (f finder) similar(all []objectName, home string) string {
	var names []string
	for _, o := range all {
		name := o.name
		if o.namespace != home {
			name += " in namespace " + o.namespace
		}
		names = append(names, name)
	}
	slices.Sort(names)
	// The place must not count for the likeness.
	bare := func(s string) string { name, _, _ := strings.Cut(s, " "); return name }
	var near []string
	for _, n := range nearest.To(f.query.Name, mapped(names, bare), 3) {
		near = append(near, names[slices.IndexFunc(names, func(s string) bool { return bare(s) == n })])
	}
	switch {
	case len(near) > 0:
		return "did you mean " + strings.Join(near, " or ") + "?"
	case len(names) > 0 && len(names) <= 8:
		return "there is " + strings.Join(names, ", ")
	}
	return f.kubectl("get " + string(f.query.Kind) + "s --all-namespaces")
}

func mapped(in []string, f func(string) string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = f(s)
	}
	return out
}

// noNamespace returns the error for a namespace that does not exist; nil if it
// does, or if one may not look.
func (f finder) noNamespace(ctx context.Context, namespace string) error {
	if !isNotFound(f.client.core.Get().Resource("namespaces").Name(namespace).Do(ctx).Error()) {
		return nil
	}
	hint := f.kubectl("get namespaces")
	var all corev1.NamespaceList
	if f.client.core.Get().Resource("namespaces").Do(ctx).Into(&all) == nil {
		var names []string
		for _, n := range all.Items {
			names = append(names, n.Name)
		}
		if near := nearest.To(namespace, names, 3); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, " or ") + "?"
		}
	}
	return configError(status.NotFound, fmt.Sprintf("there is no namespace %s in context %s", namespace, f.query.Context), hint, nil)
}

// checkProtocols refuses ports asked for that there are, but not for TCP. A
// pod need not declare that it listens on a number for TCP, too.
func checkProtocols(w forward.Workload, v view, ports []string) error {
	for _, want := range ports {
		is := func(name string, number uint16) bool {
			return name == want || w.Kind == forward.Service && strconv.Itoa(int(number)) == want
		}
		if slices.ContainsFunc(v.ports, func(p Port) bool { return is(p.Name, p.Number) }) {
			continue // DNS has one number for both
		}
		for _, p := range v.others {
			if is(p.name, p.number) {
				return configError(status.NotFound, fmt.Sprintf("%v; port-forward carries TCP only", p), Having(v.ports), nil)
			}
		}
	}
	return nil
}

// Having is a hint at the ports that there are.
func Having(ports []Port) string {
	if len(ports) == 0 {
		return "it declares no TCP port"
	}
	var have []string
	for _, p := range ports {
		have = append(have, describe(p.Name, p.Number))
	}
	return "it has " + strings.Join(have, ", ")
}

// checkPorts verifies that the workload has the ports asked for. A pod's
// numeric port need not be declared.
func checkPorts(w forward.Workload, v view, ports []string) error {
	for _, want := range ports {
		n, err := strconv.ParseUint(want, 10, 16)
		numeric := err == nil
		if numeric && (w.Kind != forward.Service || v.port(uint16(n))) {
			continue
		}
		if slices.ContainsFunc(v.ports, func(p Port) bool { return p.Name == want }) {
			continue
		}
		return configError(status.NotFound, fmt.Sprintf("%s has no TCP port %s", w.Ref(), want), Having(v.ports), nil)
	}
	if len(ports) == 0 && len(v.ports) == 0 {
		return configError(status.NotFound, w.Ref()+" declares no TCP port", "say which one it listens on: --port NUMBER", nil)
	}
	return nil
}
