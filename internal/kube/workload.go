package kube

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/tunneld/tunneld/internal/forward"
)

// A Port is a TCP port of a workload: of a Service, or of a pod's containers.
type Port struct {
	Name        string
	Number      uint16
	AppProtocol string // KEP-3726; empty if the Service does not say
}

// A view is what the cluster says about a workload.
type view struct {
	exists bool
	// obstacle says why the workload can never be carried; empty if it can.
	obstacle string
	ports    []Port
	others   []otherPort // they are left out
	backends []backend
	// nowhere are the ports that no pod has, though there are ready ones, and
	// why.
	nowhere map[uint16]string
	// strays are endpoint addresses that belong to no pod.
	strays []string
	// subdomain is the Service under which cluster DNS has the pods' names;
	// empty if there is none.
	subdomain string
}

// An otherPort is a port of another protocol than TCP.
type otherPort struct {
	name     string
	number   uint16
	protocol corev1.Protocol
}

func (p otherPort) String() string {
	return fmt.Sprintf("port %s is %s", describe(p.name, p.number), p.protocol)
}

// notes name what is left out, and why.
func (v view) notes() []string {
	var notes []string
	for _, p := range v.others {
		notes = append(notes, p.String()+": not carried, since port-forward carries TCP only")
	}
	return notes
}

// A backend is a pod of a workload.
type backend struct {
	pod, uid string
	// hostname is the pod's own name in cluster DNS; empty if it has none.
	hostname string
	// ready, serving and terminating are as in an EndpointSlice: a pod that is
	// terminating is not ready, but may serve.
	ready, serving, terminating bool
	// ports maps the Service's ports to the pod's; nil maps each to itself.
	ports map[uint16]uint16
}

// port is the pod's port for one of the target's, of which 0 is none.
func (b backend) port(n uint16) (uint16, bool) {
	if b.ports == nil {
		return n, n != 0
	}
	p, ok := b.ports[n]
	return p, ok
}

// takes reports whether the pod is one of the target's, and has its port. Of
// two that have a name one after the other, the one that is going has it no
// more: cluster DNS leaves it out, too.
func (b backend) takes(t forward.Target) bool {
	_, has := b.port(t.Port)
	return has && (t.Pod == "" || b.hostname == t.Pod && !b.terminating)
}

// carries reports whether the pod has any of the workload's ports.
func (b backend) carries() bool { return b.ports == nil || len(b.ports) > 0 }

func (v view) port(n uint16) bool {
	return slices.ContainsFunc(v.ports, func(p Port) bool { return p.Number == n })
}

// viewService joins a Service and its EndpointSlices. podAt finds a pod by its
// IP for endpoints that do not say which pod they are.
func viewService(svc *corev1.Service, eps []*discoveryv1.EndpointSlice, podAt func(ip string) (*corev1.Pod, bool)) view {
	v := view{exists: true, subdomain: svc.Name}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		v.obstacle = fmt.Sprintf("service/%s is of type ExternalName (%s): it has no pods, and port-forward goes to pods only", svc.Name, svc.Spec.ExternalName)
		return v
	}
	names := make(map[string]uint16) // the Service's TCP ports by name
	for _, p := range svc.Spec.Ports {
		if protocol := cmp.Or(p.Protocol, corev1.ProtocolTCP); protocol != corev1.ProtocolTCP {
			v.others = append(v.others, otherPort{p.Name, uint16(p.Port), protocol})
			continue
		}
		port := Port{Name: p.Name, Number: uint16(p.Port)}
		if p.AppProtocol != nil {
			port.AppProtocol = *p.AppProtocol
		}
		v.ports = append(v.ports, port)
		names[p.Name] = port.Number
	}
	if len(v.ports) == 0 && len(v.others) > 0 {
		v.obstacle = fmt.Sprintf("service/%s has no TCP port: port-forward carries TCP only", svc.Name)
	}

	merged := make(map[string]backend)
	for _, slice := range eps {
		if slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		ports := make(map[uint16]uint16)
		for _, p := range slice.Ports {
			if p.Port == nil || deref(p.Protocol, corev1.ProtocolTCP) != corev1.ProtocolTCP {
				continue
			}
			if number, ok := names[deref(p.Name, "")]; ok {
				ports[number] = uint16(*p.Port)
			}
		}
		for _, e := range slice.Endpoints {
			b, ok := backendOf(e, podAt)
			if !ok {
				v.strays = append(v.strays, e.Addresses...)
				continue
			}
			b.ports = ports
			// A pod is in several slices if it has two address families, or if
			// named target ports differ between the Service's pods.
			if known, ok := merged[b.pod+"/"+b.uid]; ok {
				b.ports = maps.Clone(known.ports)
				maps.Copy(b.ports, ports)
				b.hostname = cmp.Or(b.hostname, known.hostname)
				b.ready = b.ready || known.ready
				b.serving = b.serving || known.serving
			}
			merged[b.pod+"/"+b.uid] = b
		}
	}
	v.backends = sorted(slices.Collect(maps.Values(merged)))
	v.nowhere = leadingNowhere(svc, v.backends)
	slices.Sort(v.strays)
	v.strays = slices.Compact(v.strays)
	return v
}

// leadingNowhere finds the TCP ports of a Service that none of its ready pods
// has, which is so if their target is a name that no container gives a port.
func leadingNowhere(svc *corev1.Service, backends []backend) map[uint16]string {
	var nowhere map[uint16]string
	up := func(b backend) bool { return b.ready || b.serving }
	if !slices.ContainsFunc(backends, up) {
		return nil
	}
	for _, p := range svc.Spec.Ports {
		n := uint16(p.Port)
		has := func(b backend) bool { _, ok := b.port(n); return ok && up(b) }
		if cmp.Or(p.Protocol, corev1.ProtocolTCP) != corev1.ProtocolTCP || slices.ContainsFunc(backends, has) {
			continue
		}
		if nowhere == nil {
			nowhere = make(map[uint16]string)
		}
		nowhere[n] = fmt.Sprintf("port %s of service/%s leads to no port of its pods", describe(p.Name, n), svc.Name)
		if target := p.TargetPort.StrVal; target != "" {
			nowhere[n] = fmt.Sprintf("port %s of service/%s leads to a port named %q, which none of its pods has", describe(p.Name, n), svc.Name, target)
		}
	}
	return nowhere
}

// backendOf finds the pod of an endpoint. Conditions that are absent mean what
// discovery/v1 says they mean.
func backendOf(e discoveryv1.Endpoint, podAt func(ip string) (*corev1.Pod, bool)) (backend, bool) {
	b := backend{
		hostname:    deref(e.Hostname, ""),
		ready:       deref(e.Conditions.Ready, true),
		terminating: deref(e.Conditions.Terminating, false),
	}
	b.serving = deref(e.Conditions.Serving, b.ready)
	if ref := e.TargetRef; ref != nil {
		if ref.Kind != "Pod" {
			return backend{}, false
		}
		b.pod, b.uid = ref.Name, string(ref.UID)
		return b, true
	}
	for _, ip := range e.Addresses {
		if pod, ok := podAt(ip); ok {
			b.pod, b.uid = pod.Name, string(pod.UID)
			return b, true
		}
	}
	return backend{}, false
}

// needsPods reports whether some endpoints do not say which pod they are.
func needsPods(eps []*discoveryv1.EndpointSlice) bool {
	for _, slice := range eps {
		for _, e := range slice.Endpoints {
			if e.TargetRef == nil && slice.AddressType != discoveryv1.AddressTypeFQDN {
				return true
			}
		}
	}
	return false
}

// viewTemplate joins a Deployment or StatefulSet, by its pod template and
// selector, and the pods of its namespace.
func viewTemplate(selector *metav1.LabelSelector, template corev1.PodSpec, pods []*corev1.Pod) view {
	v := view{exists: true}
	v.ports, v.others = containerPorts(template)
	matches, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		v.obstacle = fmt.Sprintf("its selector cannot be read: %v", err)
		return v
	}
	for _, pod := range pods {
		if matches.Matches(labels.Set(pod.Labels)) && !finished(pod) {
			v.backends = append(v.backends, backendOfPod(pod))
		}
	}
	v.backends = sorted(v.backends)
	return v
}

// viewStatefulSet is viewTemplate, with the pods' names.
func viewStatefulSet(s *appsv1.StatefulSet, pods []*corev1.Pod) view {
	v := viewTemplate(s.Spec.Selector, s.Spec.Template.Spec, pods)
	v.subdomain = s.Spec.ServiceName
	hostnames := make(map[string]string) // by UID
	for _, pod := range pods {
		// One that only has the labels may be named like anything.
		if metav1.IsControlledBy(pod, s) {
			hostnames[string(pod.UID)] = pod.Spec.Hostname
		}
	}
	for i, b := range v.backends {
		v.backends[i].hostname = hostnames[b.uid]
	}
	return v
}

func viewPod(pod *corev1.Pod) view {
	v := view{exists: true}
	v.ports, v.others = containerPorts(pod.Spec)
	if finished(pod) {
		v.obstacle = fmt.Sprintf("pod/%s has ended (%s)", pod.Name, strings.ToLower(string(pod.Status.Phase)))
		return v
	}
	v.backends = []backend{backendOfPod(pod)}
	return v
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func backendOfPod(pod *corev1.Pod) backend {
	b := backend{pod: pod.Name, uid: string(pod.UID), terminating: pod.DeletionTimestamp != nil}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			b.serving = true
		}
	}
	b.ready = b.serving && !b.terminating
	return b
}

// containerPorts lists the declared TCP ports of all containers, sidecars
// among them.
func containerPorts(spec corev1.PodSpec) (ports []Port, others []otherPort) {
	seen := make(map[uint16]bool)
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, p := range c.Ports {
			n := uint16(p.ContainerPort)
			switch protocol := cmp.Or(p.Protocol, corev1.ProtocolTCP); {
			case protocol != corev1.ProtocolTCP:
				others = append(others, otherPort{p.Name, n, protocol})
			case !seen[n]:
				seen[n] = true
				ports = append(ports, Port{Name: p.Name, Number: n})
			}
		}
	}
	return ports, others
}

// sorted orders backends by name, so that equal clusters look equal.
func sorted(bs []backend) []backend {
	slices.SortFunc(bs, func(a, b backend) int {
		return cmp.Or(strings.Compare(a.pod, b.pod), strings.Compare(a.uid, b.uid))
	})
	return bs
}

// describe writes a port for people: "8000 (http)".
func describe(name string, number uint16) string {
	if name == "" {
		return fmt.Sprint(number)
	}
	return fmt.Sprintf("%d (%s)", number, name)
}

func deref[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}
