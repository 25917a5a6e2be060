package demo

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/tunneld/tunneld/internal/demo/internal/apiserver"
)

// sliceController is who says to manage the slices that are made here; others
// are left alone.
const sliceController = "endpointslice-controller.k8s.io"

// reconcileSlices makes the EndpointSlices of all Services with selectors what
// they should be.
func (t *control) reconcileSlices() {
	wanted := map[types.NamespacedName]bool{}
	services, _ := t.c.store.List("services", "", apiserver.All)
	for _, o := range services {
		s := o.(*corev1.Service)
		if len(s.Spec.Selector) == 0 || s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		selector := labels.SelectorFromSet(s.Spec.Selector)
		pods, _ := t.c.store.List("pods", s.Namespace, func(o apiserver.Object) bool { return selector.Matches(labels.Set(o.GetLabels())) })
		for _, slice := range slicesOf(s, pods) {
			wanted[apiserver.KeyOf(slice)] = true
			// Only kinds that the cluster does not know can fail.
			t.put(slice)
		}
	}
	existing, _ := t.c.store.List("endpointslices", "", apiserver.All)
	for _, o := range existing {
		if o.GetLabels()[discoveryv1.LabelManagedBy] == sliceController && !wanted[apiserver.KeyOf(o)] {
			t.c.store.Remove("endpointslices", apiserver.KeyOf(o))
		}
	}
}

// slicesOf groups a Service's pods by what its ports come to in each: named
// target ports may differ. Without pods there is one empty slice, as the real
// controller leaves one.
func slicesOf(s *corev1.Service, pods []apiserver.Object) []*discoveryv1.EndpointSlice {
	groups := map[string]*discoveryv1.EndpointSlice{}
	for _, o := range pods {
		p := o.(*corev1.Pod)
		if p.Status.PodIP == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
			continue
		}
		ports := portsIn(s, p)
		key := fmt.Sprint(len(ports))
		for _, port := range ports {
			key += fmt.Sprintf(" %s=%d", *port.Name, *port.Port)
		}
		if groups[key] == nil {
			groups[key] = &discoveryv1.EndpointSlice{Ports: ports}
		}
		groups[key].Endpoints = append(groups[key].Endpoints, endpoint(s, p))
	}
	if len(groups) == 0 {
		groups[""] = &discoveryv1.EndpointSlice{}
	}
	var found []*discoveryv1.EndpointSlice
	for i, key := range slices.Sorted(maps.Keys(groups)) {
		slice := groups[key]
		h := fnv.New32a()
		fmt.Fprint(h, s.UID, i)
		slice.Namespace = s.Namespace
		slice.Name = s.Name + "-" + rand.SafeEncodeString(strconv.Itoa(int(h.Sum32()%100000)))
		slice.Labels = map[string]string{
			discoveryv1.LabelServiceName: s.Name,
			discoveryv1.LabelManagedBy:   sliceController,
		}
		if s.Spec.ClusterIP == corev1.ClusterIPNone {
			slice.Labels[corev1.IsHeadlessService] = ""
		}
		slice.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Service", Name: s.Name, UID: s.UID, Controller: new(true), BlockOwnerDeletion: new(true),
		}}
		slice.AddressType = discoveryv1.AddressTypeIPv4
		found = append(found, slice)
	}
	return found
}

// portsIn resolves a Service's ports in a pod; a name that the pod does not
// have is left out.
func portsIn(s *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	var ports []discoveryv1.EndpointPort
	for _, sp := range s.Spec.Ports {
		number := sp.TargetPort.IntVal
		if sp.TargetPort.Type == intstr.String {
			number = namedPort(p, sp.TargetPort.StrVal, sp.Protocol)
		}
		if number != 0 {
			ports = append(ports, discoveryv1.EndpointPort{
				Name: new(sp.Name), Port: new(number), Protocol: new(sp.Protocol), AppProtocol: sp.AppProtocol,
			})
		}
	}
	return ports
}

func namedPort(p *corev1.Pod, name string, protocol corev1.Protocol) int32 {
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == name && cmp.Or(port.Protocol, corev1.ProtocolTCP) == protocol {
				return port.ContainerPort
			}
		}
	}
	return 0
}

func endpoint(s *corev1.Service, p *corev1.Pod) discoveryv1.Endpoint {
	serving, terminating := isReady(p), p.DeletionTimestamp != nil
	e := discoveryv1.Endpoint{
		Addresses: []string{p.Status.PodIP},
		Conditions: discoveryv1.EndpointConditions{
			Ready:       new((serving && !terminating) || s.Spec.PublishNotReadyAddresses),
			Serving:     new(serving || s.Spec.PublishNotReadyAddresses),
			Terminating: new(terminating),
		},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
	if p.Spec.NodeName != "" {
		e.NodeName = new(p.Spec.NodeName)
	}
	if p.Spec.Hostname != "" && p.Spec.Subdomain == s.Name {
		e.Hostname = new(p.Spec.Hostname)
	}
	return e
}
